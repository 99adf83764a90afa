"""Trains a network with Manifold Mixup, with input mixup, or without mixing."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import chainer
import chainer.functions as F
import numpy as np
from chainer.training.extensions import LinearShift, observe_value

import chainer_mmix
from chainer_mmix import datasets, models, training
from chainer_mmix.cli import argument_types as types
from chainer_mmix.mixing import MixupDraw, softmax_binary_cross_entropy
from chainer_mmix.mixing.draw import using_draw
from chainer_mmix.training.extensions import (
    DivergedError,
    MixupOff,
    TensorBoardReport,
)
from chainer_revive import cudnn

# What depends on the dataset: enough for digits in minutes on a CPU; for CIFAR as in
# the original Chainer implementation.
EPOCH = {"digits": 10, "mnist5k": 10, "mnist": 10, "cifar10": 300, "cifar100": 300}
BATCHSIZE = {
    **{"digits": 64, "mnist5k": 64, "mnist": 128},
    **{"cifar10": 256, "cifar100": 256},
}

LOSSES = {"ce": F.softmax_cross_entropy, "bce": softmax_binary_cross_entropy}

# Options that set one run apart from another: those of the model and its loss, and
# those of mixing, which --mixup none refuses.
MODEL = (
    *("stem", "downsample_fb", "pretrained", "loss", "label_smoothing"),
    *("dtype", "loss_scale"),
)
MIXING = (
    *("alpha", "layer_mix", "alpha_end", "per", "fold", "mixup_prob"),
    *("mixup_prob_end", "mixup_off_epoch", "cutmix_alpha", "switch_prob"),
)

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
    with chainer.using_config("dtype", training.DTYPES[args.dtype]):
        return train(parser, args, words)


def train(parser, args: argparse.Namespace, words: Sequence[str]) -> int:
    """Trains as the arguments say; see :func:`main`."""
    try:
        trainer, record = prepare(args, shlex.join([parser.prog, *words]))
    except (ImportError, OSError, ValueError) as e:
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
        ImportError, OSError, ValueError: If something is wrong, in one sentence.
    """
    tensorboard = TensorBoardReport() if args.tensorboard else None
    device = training.get_device(args.gpu if args.device is None else args.device)
    if args.graph and not isinstance(device, chainer.backend.GpuDevice):
        raise ValueError(
            f"--graph is for a GPU, not {device}: leave it out, or add --gpu"
        )
    dataset = datasets.lookup(datasets.DATASETS, args.dataset, "dataset")
    model_class = datasets.lookup(models.MODELS, args.model, "model")
    fill_in(args, model_class)
    arguments = {k: v for k, v in vars(args).items() if k != "quiet"}
    arguments["device"] = str(device)

    training.set_seed(args.seed, device)
    policy = chainer_mmix.MixupPolicy(
        args.alpha,
        args.layer_mix,
        per=args.per,
        fold=args.fold,
        prob=args.mixup_prob,
        cutmix_alpha=args.cutmix_alpha,
        switch_prob=args.switch_prob,
        seed=args.seed,
    )
    classifier = chainer_mmix.ManifoldMixupClassifier(
        make_model(args, model_class, dataset.n_class),
        mixup_hidden=args.mixup != "none",
        lossfun=LOSSES[args.loss],
        policy=policy,
        label_smoothing=args.label_smoothing,
    )
    if args.resume:
        # A schedule ends with the last epoch.
        scheduled = args.alpha_end is not None or args.mixup_prob_end is not None
        fixed = {"epoch", "batchsize"} if scheduled else ()
        training.check_same_run(args.resume, arguments, fixed)
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
    optimizer = training.make_optimizer(
        args.optimizer, classifier, args.lr, args.weight_decay
    )
    training.scale_loss(optimizer, args.loss_scale)
    trainer = training.build_trainer(
        optimizer,
        train,
        test,
        epoch=args.epoch,
        batchsize=args.batchsize,
        out=args.out,
        device=device,
        lr_drop=args.lr_drop,
        quiet=args.quiet,
        graph=args.graph,
        data_on_device=args.data_on_device,
    )
    if args.cutmix_alpha > 0:
        check_cutmix(classifier, test[0], device)
    if args.analyse:
        training.analyse(
            trainer,
            train,
            test,
            epoch=args.epoch,
            batchsize=args.batchsize,
            device=device,
        )
    if tensorboard:
        trainer.extend(tensorboard)
    schedule(trainer, args, policy, -(-args.epoch * len(train) // args.batchsize))
    if args.pretrained and not args.resume:
        models.load_pretrained(classifier.predictor, args.pretrained)
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
    if isinstance(device, chainer.backend.GpuDevice):
        print(cudnn.describe())
    print(describe(args, len(train), len(test)))
    return trainer, record


def make_model(args: argparse.Namespace, model_class: type, n_class: int):
    """Makes the predictor, with the options that ResNets alone have."""
    options = {}
    if issubclass(model_class, models.ResNet):
        options = {"stem": args.stem, "downsample_fb": args.downsample_fb}
    elif args.stem != "imagenet" or args.downsample_fb:
        raise ValueError(
            f"--stem and --downsample-fb are for resnet18 to resnet152, not for "
            f"{args.model}"
        )
    return model_class(n_class=n_class, **options)


def check_cutmix(classifier, example: tuple, device) -> None:
    """Tries CutMix at every point that is drawn from; not every map is large enough."""
    x, t = training.convert_examples([example] * 2, device)
    for point in classifier.points:
        draw = MixupDraw(point, 0.5, np.arange(2), np.zeros(3))
        keywords = {"mixup_hidden": True, "lam": 0.5, "layer_mix": point}
        with using_draw(draw), chainer.using_config("train", False):
            try:
                classifier.predictor(x, t, **keywords)
            except ValueError as e:
                raise ValueError(f"{e} (layer {point}, --cutmix-alpha)") from e


def schedule(trainer, args: argparse.Namespace, policy, n_iteration: int) -> None:
    """Lets the policy change with time, as the arguments say, and logs it."""
    for attribute, end in (("alpha", args.alpha_end), ("prob", args.mixup_prob_end)):
        if end is not None:
            values = getattr(policy, attribute), end
            shift = LinearShift(attribute, values, (0, n_iteration), policy)
            trainer.extend(shift, name=f"shift_{attribute}")
            trainer.extend(
                observe_value(
                    f"mixup/{attribute}",
                    lambda _, name=attribute: getattr(policy, name),
                ),
                name=f"observe_{attribute}",
            )
    if args.mixup_off_epoch is not None:
        trainer.extend(MixupOff(args.mixup_off_epoch))


def fill_in(args: argparse.Namespace, model_class: type) -> None:
    """Fills in the defaults that depend on other arguments, and checks them."""
    if args.epoch is None:
        args.epoch = EPOCH[args.dataset]
    if args.batchsize is None:
        args.batchsize = BATCHSIZE[args.dataset]
    if args.lr is None:
        args.lr = training.OPTIMIZERS[args.optimizer]
    if args.mixup == "input" and args.layer_mix not in (None, [0]):
        raise ValueError("--layer-mix chooses layers for --mixup manifold, not input")
    if args.mixup == "none":
        parser = get_parser()
        for option in MIXING[1:]:
            if getattr(args, option) != parser.get_default(option):
                name = "--" + option.replace("_", "-")
                raise ValueError(f"{name} is for --mixup manifold or input, not none")
        args.alpha = 0.0
    elif args.mixup == "input":
        args.layer_mix = [0]
    elif args.layer_mix is None:
        args.layer_mix = list(model_class.default_layer_mix)
    if args.loss_scale is not None and args.dtype == "float32":
        raise ValueError("--loss-scale is for --dtype float16 or mixed16, not float32")
    if args.dtype == "float16" and args.optimizer in ("adam", "adamw"):
        raise ValueError(
            f"--dtype float16 is not for --optimizer {args.optimizer}, since squares "
            "of gradients vanish in it: use --dtype mixed16, or momentum_sgd"
        )
    if args.switch_prob != 0.5 and 0 in (args.alpha, args.cutmix_alpha):
        raise ValueError("--switch-prob is for --cutmix-alpha and --alpha above 0")
    if args.mixup_off_epoch is not None and args.mixup_off_epoch >= args.epoch:
        raise ValueError(
            f"--mixup-off-epoch {args.mixup_off_epoch} is not before the end, --epoch "
            f"{args.epoch}: leave it out, or choose an earlier one"
        )
    if args.pretrained is not None:
        args.pretrained = os.path.abspath(args.pretrained)
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
    layers = list(model_class.default_layer_mix)
    if args.mixup == "manifold" and args.layer_mix != layers:
        name += f"_layer{'-'.join(map(str, args.layer_mix))}"
    name = "_".join([name, *non_defaults(args, MODEL + MIXING[2:])])
    if args.train_size is not None:
        name += f"_n{args.train_size}"
    if args.label_noise:
        name += f"_noise{args.label_noise:g}"
    return os.path.join("result", f"{name}_seed{args.seed}")


def non_defaults(args: argparse.Namespace, options: Sequence[str]) -> list[str]:
    """Names the options that are not at their defaults, with their values."""
    parser = get_parser()
    words = []
    for option in options:
        value = getattr(args, option)
        if value != parser.get_default(option):
            if option == "pretrained":
                value = Path(value).stem
            word = option.replace("_", "-")
            words.append(word if value is True else f"{word}-{value}")
    return words


def describe(args: argparse.Namespace, n_train: int, n_test: int) -> str:
    """Returns the setting in one line."""
    mixing = "no mixup"
    if args.mixup != "none":
        layers = " ".join(map(str, args.layer_mix))
        mixing = f"{args.mixup} mixup with alpha {args.alpha:g} at layer {layers}"
    options = "".join(f", {word}" for word in non_defaults(args, MODEL + MIXING[2:]))
    return (
        f"setting: {args.model} on {args.dataset} ({n_train} training and {n_test} "
        f"validation images), {mixing}{options}, {args.optimizer} with lr {args.lr:g}, "
        f"batches of {args.batchsize}, {args.epoch} epochs, seed {args.seed}"
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
        "8x8 pixels) come with scikit-learn, mnist5k (5,000 images of MNIST) with the "
        "extra mnist, the others are downloaded and cached (default: digits)",
    )
    points = {}
    for name, model in models.MODELS.items():
        default = _join(model.default_layer_mix)
        points[name] = f"{_join(model.mixup_layers)}, by default {default},"
    group.add_argument(
        "--model",
        default="resnet50",
        metavar="NAME",
        help=f"one of {', '.join(models.MODELS)} (default: resnet50)",
    )
    group.add_argument(
        "--stem",
        choices=("imagenet", "cifar"),
        default="imagenet",
        help="how resnet18 to resnet152 begin: with a 7x7 convolution of stride 2 and "
        "pooling, or with a 3x3 convolution that keeps the size (default: imagenet)",
    )
    group.add_argument(
        "--pretrained",
        metavar="FILE",
        help="begin with the weights in this npz file, but for the last layer: "
        "ImageNet weights of Chainer (ResNet-50-model.npz) or ChainerCV for resnet50, "
        "101 and 152, or what a run of the same model saved; the images stay as they "
        "are, RGB in [0, 1], which ImageNet weights have to get used to; they are for "
        "--dataset cifar10 and cifar100, since the digits are grey",
    )
    group.add_argument(
        "--downsample-fb",
        action="store_true",
        help="for resnet50, 101 and 152: stride in the 3x3 convolutions, as weights of "
        "ChainerCV want it (default: off)",
    )
    group.add_argument(
        "--train-size",
        type=types.positive_int,
        metavar="N",
        help="train on N images only, a random choice in which every class keeps its "
        "share (default: all)",
    )
    group.add_argument(
        "--label-noise",
        type=types.share,
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
        type=types.not_negative,
        default=0.2,
        help="lambda is drawn from Beta(ALPHA, ALPHA); 0 means no mixing; the paper "
        "uses 2 for CIFAR (default: 0.2)",
    )
    group.add_argument(
        "--layer-mix",
        type=int,
        nargs="+",
        metavar="K",
        help=f"layers to draw from, 0 being the input: {_by_value(points, '; ')}",
    )
    group.add_argument(
        "--per",
        choices=("batch", "pair", "sample"),
        default="batch",
        help="draw one lambda a minibatch, one a pair of samples that are mixed with "
        "each other, or one a sample (default: batch)",
    )
    group.add_argument(
        "--fold",
        action="store_true",
        help="use the larger of lambda and 1 - lambda (default: off)",
    )
    group.add_argument(
        "--mixup-prob",
        type=types.share,
        default=1.0,
        metavar="P",
        help="probability that a minibatch is mixed (default: 1)",
    )
    group.add_argument(
        "--alpha-end",
        type=types.not_negative,
        metavar="A",
        help="shift alpha linearly to A until the last epoch (default: it stays)",
    )
    group.add_argument(
        "--mixup-prob-end",
        type=types.share,
        metavar="P",
        help="shift the probability of mixing likewise (default: it stays)",
    )
    group.add_argument(
        "--mixup-off-epoch",
        type=types.positive_int,
        metavar="E",
        help="stop mixing after this epoch (default: never)",
    )
    group.add_argument(
        "--cutmix-alpha",
        type=types.not_negative,
        default=0.0,
        metavar="A",
        help="CutMix with lambda from Beta(A, A): in place of mixup with --alpha 0, "
        "else besides it; 0 means none (default: 0)",
    )
    group.add_argument(
        "--switch-prob",
        type=types.share,
        default=0.5,
        metavar="P",
        help="probability of CutMix where there are both (default: 0.5)",
    )

    group = parser.add_argument_group("optimization")
    group.add_argument(
        "--loss",
        choices=tuple(LOSSES),
        default="ce",
        help="cross entropy, or binary cross entropy of the softmax as in the paper's "
        "code, whose gradient is smaller, about by the number of classes (default: ce)",
    )
    group.add_argument(
        "--label-smoothing",
        type=types.share,
        default=0.0,
        metavar="E",
        help="spread this share of each training label over all classes (default: 0)",
    )
    group.add_argument(
        "--epoch",
        type=types.positive_int,
        metavar="N",
        help=f"passes over the training set (default: {_by_value(EPOCH)})",
    )
    group.add_argument(
        "--batchsize",
        type=types.positive_int,
        metavar="N",
        help=f"images in a minibatch (default: {_by_value(BATCHSIZE)})",
    )
    group.add_argument(
        "--optimizer",
        choices=tuple(training.OPTIMIZERS),
        default="adam",
        help="the last two have momentum 0.9 (default: adam)",
    )
    rates = ", ".join(f"{lr:g} for {name}" for name, lr in training.OPTIMIZERS.items())
    group.add_argument(
        "--lr", type=types.positive, help=f"learning rate (default: {rates})"
    )
    group.add_argument(
        "--lr-drop",
        type=types.positive_int,
        nargs="+",
        default=[],
        metavar="E",
        help="divide the learning rate by 10 after these epochs (default: never)",
    )
    group.add_argument(
        "--weight-decay",
        type=types.not_negative,
        default=0.0,
        metavar="RATE",
        help="an L2 penalty; decoupled from the gradient for adamw, as a share of the "
        "learning rate (default: 0)",
    )
    group.add_argument(
        "--seed",
        type=types.seed,
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
        "--dtype",
        choices=tuple(training.DTYPES),
        default="float32",
        help="of the network; mixed16 is float16, with float32 copies of the weights "
        "and for batch statistics (default: float32)",
    )
    group.add_argument(
        "--loss-scale",
        type=types.positive,
        metavar="S",
        help="scale the loss by a constant for --dtype float16 or mixed16, so that "
        "small gradients do not become zero (default: by as much as fits)",
    )
    group.add_argument(
        "--graph",
        action="store_true",
        help="experimental, on a GPU: capture a training step of each layer as a CUDA "
        "graph and replay it (default: off)",
    )
    group.add_argument(
        "--data-on-device",
        action="store_true",
        help="keep all images on the device and augment them there, a batch at a time; "
        "faster with --augment, and the results are the same; on a GPU experimental "
        "(default: off)",
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
        "--analyse",
        action="store_true",
        help="when trained, measure calibration and robustness too (FGSM, and images "
        "rotated, sheared and zoomed) and draw mixed images, for chainer-mmix report "
        "(default: off)",
    )
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="write the log for TensorBoard too, into a folder tensorboard of the "
        "output folder (needs the extra tensorboard; default: off)",
    )
    group.add_argument(
        "--quiet", action="store_true", help="print no table and no progress bar"
    )
    return parser


def _join(values: Sequence) -> str:
    return " ".join(map(str, values))


def _by_value(table: dict[str, object], separator: str = ", ") -> str:
    names: dict[object, list[str]] = {}
    for name, value in table.items():
        names.setdefault(value, []).append(name)
    return separator.join(
        f"{value} for {' and '.join(n)}" for value, n in names.items()
    )


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.2%}"
