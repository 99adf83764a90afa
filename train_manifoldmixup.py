"""Trains a network with Manifold Mixup, with input mixup, or without mixing."""

from __future__ import annotations

# Before Chainer, which needs its compatibility layer on today's NumPy.
import chainer_mmix  # isort: skip

import argparse
import math
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    import models
    from chainer_mmix import datasets, training
    from chainer_mmix.training.extensions import DivergedError
except ModuleNotFoundError as e:
    sys.exit(f"{e} in {sys.executable}: run 'make venv', then '. .venv/bin/activate'")

# What depends on the dataset: enough for digits in minutes on a CPU; for CIFAR as in
# the original Chainer implementation.
EPOCH = {"digits": 10, "cifar10": 300, "cifar100": 300}
BATCHSIZE = {"digits": 64, "cifar10": 256, "cifar100": 256}

DESCRIPTION = """\
Train a network with Manifold Mixup: in each minibatch, the hidden states at a randomly
drawn layer are mixed, and so is the loss (arXiv 1806.05236).

The output folder gets: log (all numbers of each epoch), loss.png and accuracy.png,
mixup.json (how often each layer was drawn, and which lambda), run.json (arguments,
versions, device, result) and the two newest snapshots.
"""

EPILOG = """\
main/accuracy in the table is weighted over the labels of both partners by lambda, as
the loss is. Validation is on the test set, without mixing.

examples:
  python train_manifoldmixup.py
      ResNet-50 on scikit-learn's digits, on the CPU, in a few minutes
  python train_manifoldmixup.py --gpu 0 --dataset cifar10 --alpha 2 --augment \\
      --optimizer momentum_sgd --weight-decay 1e-4 --lr-drop 150 225
      CIFAR-10 on a GPU, with the paper's alpha and optimizer
  python train_manifoldmixup.py --model cnn --mixup none --train-size 200
      a small network on 200 digits without mixing; --mixup manifold to compare
  python train_manifoldmixup.py --resume --epoch 40
      go on with the run of the same arguments, up to epoch 40
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv (sequence of str): The arguments; those of the process by default.

    Returns:
        int: 0, 1 when the training diverged, or 130 when it was interrupted. Bad
        arguments exit with 2.
    """
    parser = get_parser()
    args = parser.parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    try:
        trainer, record = prepare(args, shlex.join([parser.prog, *words]))
    except (OSError, ValueError) as e:
        parser.error(" ".join(str(e).split()))  # one line
    try:
        training.run(trainer, record)
    except DivergedError as e:
        last = training.find_snapshot(trainer.out)
        kept = f"the last good snapshot is {last}" if last else "no snapshot yet"
        print(
            f"{parser.prog}: the training failed: {e}; {kept}; try a lower --lr than "
            f"{args.lr:g}, or a larger --batchsize",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; go on with --resume", file=sys.stderr)
        return 130
    result = record.content
    print(
        f"best validation accuracy {_percent(result['best_accuracy'])} (epoch "
        f"{result['best_epoch']}), final {_percent(result['final_accuracy'])}; "
        f"log, pictures and snapshots are in {trainer.out}"
    )
    return 0


def prepare(args: argparse.Namespace, command: str) -> tuple:
    """Checks all arguments and builds everything, the output folder last.

    Args:
        args (argparse.Namespace): What the parser gave; defaults are filled in.
        command (str): The command line, for the record.

    Returns:
        tuple: The Trainer and the :class:`~chainer_mmix.training.RunRecord`.

    Raises:
        ValueError, OSError: If something is wrong, in one sentence.
    """
    device = training.get_device(args.gpu if args.device is None else args.device)
    dataset = datasets.lookup(datasets.DATASETS, args.dataset, "dataset")
    model_class = datasets.lookup(models.MODELS, args.model, "model")
    fill_in(args, model_class)
    arguments = {k: v for k, v in vars(args).items() if k != "quiet"}
    arguments["device"] = str(device)

    training.set_seed(args.seed, device)
    classifier = chainer_mmix.ManifoldMixupClassifier(
        model_class(n_class=dataset.n_class),
        mixup_hidden=args.mixup != "none",
        mixup_alpha=args.alpha,
        layer_mix=args.layer_mix,
        seed=args.seed,
    )
    if args.resume:
        training.check_same_run(args.resume, arguments)
    training.check_output(args.out, args.resume)

    train, test = datasets.load(
        dataset,
        name=args.dataset,
        train_size=args.train_size,
        label_noise=args.label_noise,
        augment=args.augment,
        seed=args.seed,
    )
    if args.batchsize > len(train):
        raise ValueError(
            f"--batchsize {args.batchsize} is more than the {len(train)} training "
            "examples: choose a smaller one"
        )
    classifier.to_device(device)
    device.use()
    trainer = training.build_trainer(
        training.make_optimizer(args.optimizer, classifier, args.lr, args.weight_decay),
        train,
        test,
        epoch=args.epoch,
        batchsize=args.batchsize,
        out=args.out,
        device=device,
        lr_drop=args.lr_drop,
        quiet=args.quiet,
    )
    if args.resume:
        training.load_snapshot(args.resume, trainer)
        if trainer.updater.epoch >= args.epoch:
            raise ValueError(
                f"{args.resume} is from the end of epoch {trainer.updater.epoch} and "
                f"--epoch is {args.epoch}: give a higher --epoch to go on"
            )

    record = training.RunRecord(
        args.out,
        arguments,
        command,
        device,
        args.seed,
        resumed_from=Path(args.resume).name if args.resume else None,
    )
    try:
        Path(args.out).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ValueError(
            f"the output folder {args.out} cannot be made ({e.strerror}): name another "
            "with --out"
        ) from e
    record.start()
    print(f"device: {device}, {record.content['device_name']}")
    print(describe(args, len(train), len(test)))
    return trainer, record


def fill_in(args: argparse.Namespace, model_class: type) -> None:
    """Fills in the defaults that depend on other arguments."""
    if args.epoch is None:
        args.epoch = EPOCH[args.dataset]
    if args.batchsize is None:
        args.batchsize = BATCHSIZE[args.dataset]
    if args.lr is None:
        args.lr = training.OPTIMIZERS[args.optimizer]
    if args.mixup != "manifold" and args.layer_mix not in (None, [0]):
        raise ValueError(
            f"--layer-mix chooses layers for --mixup manifold, not for {args.mixup}"
        )
    if args.mixup == "none":
        args.alpha, args.layer_mix = 0.0, None
    elif args.mixup == "input":
        args.layer_mix = [0]
    elif args.layer_mix is None:
        args.layer_mix = list(model_class.default_layer_mix)
    if args.out is None:
        args.out = default_out(args, model_class)
    if args.resume is True or (args.resume and os.path.isdir(args.resume)):
        folder = args.out if args.resume is True else args.resume
        args.resume = training.find_snapshot(folder)
        if args.resume is None:
            raise ValueError(
                f"there is no snapshot to resume from in {folder}: name one with "
                "--resume SNAPSHOT, or the folder with --out"
            )
        args.resume = str(args.resume)


def default_out(args: argparse.Namespace, model_class: type) -> str:
    """Names the output folder by what sets one run apart from others."""
    name = f"{args.dataset}_{args.model}_{args.mixup}"
    if args.mixup != "none":
        name += f"_alpha{args.alpha:g}"
    default = list(model_class.default_layer_mix)
    if args.mixup == "manifold" and args.layer_mix != default:
        name += f"_layer{'-'.join(map(str, args.layer_mix))}"
    if args.train_size is not None:
        name += f"_n{args.train_size}"
    if args.label_noise:
        name += f"_noise{args.label_noise:g}"
    return os.path.join("result", f"{name}_seed{args.seed}")


def describe(args: argparse.Namespace, n_train: int, n_test: int) -> str:
    """Returns the setting in one line."""
    mixing = "no mixup"
    if args.mixup != "none":
        layers = " ".join(map(str, args.layer_mix))
        mixing = f"{args.mixup} mixup with alpha {args.alpha:g} at layer {layers}"
    return (
        f"setting: {args.model} on {args.dataset} ({n_train} training and {n_test} "
        f"validation images), {mixing}, {args.optimizer} with lr {args.lr:g}, batches "
        f"of {args.batchsize}, {args.epoch} epochs, seed {args.seed}"
    )


def get_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="train_manifoldmixup.py",
        usage="%(prog)s [option ...]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    group = parser.add_argument_group("what to train")
    group.add_argument(
        "--dataset",
        default="digits",
        metavar="NAME",
        help=f"one of {', '.join(datasets.DATASETS)}; digits (1442 training images of "
        "8x8 pixels) come with scikit-learn, the others are downloaded into Chainer's "
        "dataset cache (default: digits)",
    )
    layers = "; ".join(
        f"{name} has {_join(model.mixup_layers)}, by default "
        f"{_join(model.default_layer_mix)}"
        for name, model in models.MODELS.items()
    )
    group.add_argument(
        "--model",
        default="resnet50",
        metavar="NAME",
        help=f"one of {', '.join(models.MODELS)} (default: resnet50)",
    )
    group.add_argument(
        "--train-size",
        type=_positive_int,
        metavar="N",
        help="train on N images only, a random choice in which every class keeps its "
        "share (default: all)",
    )
    group.add_argument(
        "--label-noise",
        type=_share,
        default=0.0,
        metavar="P",
        help="replace this share of the training labels by random other ones, 0 to 1; "
        "test labels stay right (default: 0)",
    )
    group.add_argument(
        "--augment",
        action="store_true",
        help="random crop and rotation by up to 10 degrees, and for CIFAR flips "
        "(default: off)",
    )

    group = parser.add_argument_group("mixing")
    group.add_argument(
        "--mixup",
        choices=("manifold", "input", "none"),
        default="manifold",
        help="mix at a randomly drawn layer, at the input only (layer 0), or not at "
        "all (default: manifold)",
    )
    group.add_argument(
        "--alpha",
        type=_not_negative,
        default=0.2,
        help="lambda is drawn from Beta(ALPHA, ALPHA); 0 means no mixing; the paper "
        "uses 2 for CIFAR (default: 0.2)",
    )
    group.add_argument(
        "--layer-mix",
        type=int,
        nargs="+",
        metavar="K",
        help=f"layers to draw from, 0 being the input: {layers}",
    )

    group = parser.add_argument_group("optimization")
    group.add_argument(
        "--epoch",
        type=_positive_int,
        metavar="N",
        help=f"passes over the training set (default: {_by_dataset(EPOCH)})",
    )
    group.add_argument(
        "--batchsize",
        type=_positive_int,
        metavar="N",
        help=f"images in a minibatch (default: {_by_dataset(BATCHSIZE)})",
    )
    group.add_argument(
        "--optimizer",
        choices=tuple(training.OPTIMIZERS),
        default="adam",
        help="the last two have momentum 0.9 (default: adam)",
    )
    rates = ", ".join(f"{lr:g} for {name}" for name, lr in training.OPTIMIZERS.items())
    group.add_argument("--lr", type=_positive, help=f"learning rate (default: {rates})")
    group.add_argument(
        "--lr-drop",
        type=_positive_int,
        nargs="+",
        default=[],
        metavar="E",
        help="divide the learning rate by 10 after these epochs (default: never)",
    )
    group.add_argument(
        "--weight-decay",
        type=_not_negative,
        default=0.0,
        metavar="RATE",
        help="an L2 penalty; decoupled from the gradient for adamw, as a share of the "
        "learning rate (default: 0)",
    )
    group.add_argument(
        "--seed",
        type=_seed,
        default=0,
        help="of all that is random: on a CPU, the same seed gives the same log to the "
        "bit (default: 0)",
    )

    group = parser.add_argument_group("where")
    exclusive = group.add_mutually_exclusive_group()
    exclusive.add_argument(
        "--gpu",
        type=int,
        default=-1,
        metavar="N",
        help="number of the GPU, negative for the CPU (default: -1)",
    )
    exclusive.add_argument(
        "--device",
        metavar="SPEC",
        help="the same as one of Chainer's specifiers: @numpy, @cupy:0, @intel64",
    )
    group.add_argument(
        "--out",
        metavar="FOLDER",
        help="output folder (default: result/ and a name of dataset, model, mixing and "
        "seed)",
    )
    group.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="SNAPSHOT",
        help="go on from a snapshot, or the newest in a folder, without a value in the "
        "output folder; on a CPU, the result is that of a run without a break",
    )
    group.add_argument(
        "--quiet", action="store_true", help="print no table and no progress bar"
    )
    return parser


def _join(values: Sequence) -> str:
    return " ".join(map(str, values))


def _by_dataset(table: dict[str, int]) -> str:
    names: dict[int, list[str]] = {}
    for name, value in table.items():
        names.setdefault(value, []).append(name)
    return ", ".join(f"{value} for {' and '.join(n)}" for value, n in names.items())


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.2%}"


def _number(text: str, kind: type, is_good, wanted: str):
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not is_good(value):
        raise argparse.ArgumentTypeError(f"must be {wanted}, not {text}")
    return value


def _positive_int(text: str) -> int:
    return _number(text, int, lambda n: n >= 1, "a whole number >= 1")


def _seed(text: str) -> int:
    wanted = "a whole number in [0, 4294967295]"
    return _number(text, int, lambda n: 0 <= n < 2**32, wanted)


def _positive(text: str) -> float:
    return _number(text, float, lambda x: 0 < x < math.inf, "a finite number > 0")


def _not_negative(text: str) -> float:
    return _number(text, float, lambda x: 0 <= x < math.inf, "a finite number >= 0")


def _share(text: str) -> float:
    return _number(text, float, lambda x: 0 <= x <= 1, "in [0, 1]")


if __name__ == "__main__":
    sys.exit(main())
