"""Trains a network with Manifold Mixup, with input mixup, or without mixing."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import chainer
import numpy as np
from chainer.training.extensions import observe_value

import chainer_mmix
from chainer_mmix import datasets, models, training
from chainer_mmix.cli import options
from chainer_mmix.cli.argument_types import parse_every
from chainer_mmix.cli.options import naming
from chainer_mmix.cli.resume import (
    check_same_data,
    check_same_run,
    newest_snapshot,
    parse,
)
from chainer_mmix.cli.streams import lasting_streams
from chainer_mmix.lookup import lookup
from chainer_mmix.mixing import MixupDraw
from chainer_mmix.mixing.draw import using_draw
from chainer_mmix.runs.log import write_log
from chainer_mmix.runs.metric import lower_is_better
from chainer_mmix.runs.record import RunRecord
from chainer_mmix.training.extensions import (
    DivergedError,
    MixupOff,
    MixupShift,
    TensorBoardReport,
)
from chainer_revive import cudnn

SCRIPT = "train_manifoldmixup.py"

_DESCRIPTION = """\
Train a network with Manifold Mixup: in each minibatch, the hidden states at a randomly
drawn layer are mixed, and so is the loss (arXiv 1806.05236).

The output folder gets: log (all numbers of each epoch), loss.png and accuracy.png,
mixup.json (how often each layer was drawn, and which lambda), run.json (arguments,
versions, device, result), the two newest snapshots and that of the best epoch.
"""
_EPILOG = """\
main/accuracy in the table is weighted over the labels of both partners by lambda, as
the loss is. Validation is without mixing, on the validation set if there is one, else
on the test set; run.json says which.

examples:
  {command}
      ResNet-50 on scikit-learn's digits, on the CPU, in a few minutes
  {command} --gpu 0 --dataset cifar10 --alpha 2 --augment \\
      --optimizer sgd --weight-decay 1e-4 --lr-drop 150 225
      CIFAR-10 on a GPU, with the paper's alpha and optimizer
  {command} --model cnn --mixup none --train-size 200
      a small network on 200 digits without mixing; --mixup manifold to compare
  {command} --dataset folder:pictures --validation-split 0.2 --augment --workers 2
      pictures of one's own, one folder a class
  {command} --resume --epoch 40
      go on with the run of the same arguments, up to epoch 40
  {command} --resume auto
      begin, or go on where the last try ended: what a job scheduler starts again
"""


@functools.cache
def get_parser(prog: str = SCRIPT) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command = f"python {prog}" if prog == SCRIPT else prog
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s [option ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(command=command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_options(parser)
    return parser


def main(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> int:
    """Runs the command line.

    Args:
        argv (sequence of str): The arguments; those of the process by default.
        prog (str): What the command is called in help, errors and record.

    Returns:
        int: 0; 1 when the training diverged or a file could not be written; 130, 143 or
        129 when Ctrl-C, SIGTERM or SIGHUP stopped it. Bad arguments exit with 2.
    """
    parser = get_parser(prog)
    words = sys.argv[1:] if argv is None else argv
    try:
        args = parse(parser, words, _find_out)
    except ValueError as e:
        parser.error(" ".join(str(e).split()))  # one line
    dtype = training.DTYPES[args.dtype]
    config = chainer.using_config("dtype", dtype)
    with lasting_streams(), config, plain_warnings(prog):
        return train(parser, args, words)


@contextlib.contextmanager
def plain_warnings(prog: str) -> Iterator[None]:
    """Writes warnings for users as one line, without a place in the source."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_plainly(message, category, *place, **more) -> None:
            if category is UserWarning:
                text = " ".join(str(message).split())
                print(f"{prog}: warning: {text}", file=sys.stderr)
            else:
                show(message, category, *place, **more)

        warnings.showwarning = show_plainly
        yield


def train(
    parser: argparse.ArgumentParser, args: argparse.Namespace, words: Sequence[str]
) -> int:
    """Trains as the arguments say; see :func:`main`."""
    try:
        trainer, record, lock = prepare(args, f"{parser.prog} {shlex.join(words)}")
        if lock is None:
            return finish(args, trainer)
    except (ImportError, OSError, ValueError) as e:
        parser.error(" ".join(str(e).split()))  # one line
    except KeyboardInterrupt:
        return _stop(parser.prog, "interrupted", args.out, 130)
    try:
        training.run(trainer, record)
    except DivergedError as e:
        remedy = f"try a lower --lr than {args.lr:g}, or a larger --batchsize"
        return _stop(parser.prog, f"the training failed: {e}", args.out, 1, remedy)
    except datasets.UnreadablePictureError as e:
        remedy = (
            "put a whole picture there and go on with --resume, or train anew with "
            "--skip-corrupt"
        )
        return _stop(parser.prog, f"the training stopped: {e}", args.out, 1, remedy)
    except OSError as e:
        what = f"{e.filename}: {e.strerror}" if e.filename else e.strerror or str(e)
        return _stop(parser.prog, f"the training failed: {what}", args.out, 1)
    except training.MetricError as e:
        return _stop(parser.prog, str(e), args.out, 1, "name another --keep-best")
    except training.StoppedError as e:
        return _stop(parser.prog, str(e), args.out, 128 + e.signum)
    except KeyboardInterrupt:
        return _stop(parser.prog, "interrupted", args.out, 130)
    finally:
        lock.release()
    result = record.content
    on_test = ""
    if result["test_accuracy"] is not None:
        on_test = f", on the test set {_percent(result['test_accuracy'])}"
    print(
        f"best {result['data']['held_out']} accuracy "
        f"{_percent(result['best_accuracy'])} (epoch {result['best_epoch']}), final "
        f"{_percent(result['final_accuracy'])}{on_test}; log, pictures and snapshots "
        f"are in {trainer.out}"
    )
    return 0


def finish(args: argparse.Namespace, trainer) -> int:
    """Does what is left of a run that is trained: its analysis, if it is wanted."""
    if args.analyse and training.analyse_finished(trainer):
        print(f"analysed the network of {args.resume}")
    else:
        print(
            f"nothing to do: {args.resume} is from the end of epoch "
            f"{trainer.updater.epoch}, and --epoch is {args.epoch}; "
            "give a higher --epoch to go on"
        )
    return 0


def _stop(prog: str, reason: str, out: str, code: int, remedy: str = "") -> int:
    """Says why a run has ended and how it goes on; returns the exit code."""
    try:
        last = out and training.find_snapshot(out)
    except OSError:
        last = None
    kept = f"the last good snapshot is {last}" if last else "no snapshot yet"
    remedy = remedy or f"go on with {prog} --resume {shlex.quote(str(out))}"
    print(f"{prog}: {reason}; {kept}; {remedy}", file=sys.stderr)
    return code


def prepare(args: argparse.Namespace, command: str) -> tuple:
    """Checks all arguments and builds everything, the output folder last.

    Args:
        args (argparse.Namespace): What the parser gave; defaults are filled in.
        command (str): The command line, for the record.

    Returns:
        tuple: The Trainer, the :class:`~chainer_mmix.training.RunRecord` and the lock
        of the output folder, ``None`` if there is nothing to train.

    Raises:
        ImportError, OSError, ValueError: If something is wrong, in one sentence.
    """
    tensorboard = TensorBoardReport() if args.tensorboard else None
    with naming("gpu", "device"):
        device = training.get_device(args.gpu if args.device is None else args.device)
    if args.graph and not isinstance(device, chainer.backend.GpuDevice):
        raise ValueError(
            f"--graph is for a GPU, not {device}: leave it out, or add --gpu"
        )
    model_class = lookup(models.MODELS, args.model, "model")
    fill_in(args, model_class)
    with naming("dataset"):
        dataset = datasets.find(
            args.dataset,
            data_root=args.data_root,
            size=args.size,
            validation_split=args.validation_split,
            seed=args.seed,
            skip_corrupt=args.skip_corrupt,
        )
    asked, again = args.resume, False
    if asked:
        if os.path.isdir(args.out) and os.access(args.out, os.W_OK):
            # A run at work there would take away the snapshot that is found.
            training.RunLock(args.out).release()
        with naming("resume"):
            args.resume, flaws = newest_snapshot(asked, args.out)
        for flaw in flaws:
            print(f"warning: {flaw}: going on from {args.resume}", file=sys.stderr)
        again = args.resume is None
    arguments = vars(args) | {"device": str(device)}

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
        fixed_lam=args.fixed_lam,
    )
    classifier = chainer_mmix.ManifoldMixupClassifier(
        models.make_model(
            args.model,
            dataset.n_class,
            stem=args.stem,
            downsample_fb=args.downsample_fb,
            published=args.published,
        ),
        mixup_hidden=args.mixup != "none",
        lossfun=options.LOSSES[args.loss],
        policy=policy,
        label_smoothing=args.label_smoothing,
    )
    if args.resume:
        # A schedule ends with the last epoch.
        scheduled = args.alpha_end is not None or args.mixup_prob_end is not None
        fixed = {"epoch", "batchsize"} if scheduled or args.cosine else ()
        check_same_run(os.path.dirname(args.resume) or ".", arguments, fixed)
    with naming("out", "resume"):
        training.check_output(args.out, args.resume, again)

    splits = datasets.load_splits(
        dataset,
        name=args.dataset,
        train_size=args.train_size,
        label_noise=args.label_noise,
        augment=args.augment,
        seed=args.seed,
    )
    train, held_out = splits.train, splits.held_out
    data = {
        "n_train": len(train),
        "n_held_out": len(held_out),
        "held_out": splits.held_out_name,
        "class_names": list(splits.class_names),
    }
    if args.resume:
        check_same_data(args.resume, data)
    data |= datasets.describe_inputs(held_out)
    if args.batchsize > len(train):
        raise ValueError(
            f"--batchsize {args.batchsize} is more than the {len(train)} training "
            "examples: choose a smaller one"
        )
    classifier.to_device(device)
    device.use()
    optimizer = training.make_optimizer(
        args.optimizer,
        classifier,
        args.lr,
        args.weight_decay,
        args.momentum,
        args.nesterov,
        args.grad_clip,
    )
    training.scale_loss(optimizer, args.loss_scale)
    trainer = training.build_trainer(
        optimizer,
        train,
        held_out,
        epoch=args.epoch,
        batchsize=args.batchsize,
        out=args.out,
        device=device,
        lr_drop=args.lr_drop,
        warmup=args.warmup,
        cosine=args.cosine,
        quiet=args.quiet,
        graph=args.graph,
        data_on_device=args.data_on_device,
        workers=args.workers,
        **keeping(args),
    )
    if args.cutmix_alpha > 0:
        check_cutmix(classifier, held_out[0], device)
    at_end = {"epoch": args.epoch, "batchsize": args.batchsize, "device": device}
    if args.analyse:
        names = splits.class_names
        training.analyse(trainer, train, held_out, class_names=names, **at_end)
    if splits.test is not None and splits.test is not held_out:
        training.evaluate_at_end(trainer, splits.test, **at_end)
    if tensorboard:
        trainer.extend(tensorboard)
    schedule(trainer, args, policy, -(-args.epoch * len(train) // args.batchsize))
    if args.pretrained and not args.resume:
        models.load_pretrained(classifier.predictor, args.pretrained)
    if args.resume:
        with naming("resume"):
            training.load_snapshot(args.resume, trainer)

    record = RunRecord(
        args.out,
        arguments,
        command,
        device,
        args.seed,
        resumed_from=args.resume,
        epoch=epochs_done(trainer.updater),
        setting=options.setting_of(args),
        data=data,
    )
    if args.resume and training.is_done(trainer):
        return trainer, record, None
    lock = open_output(args.out)
    try:
        begin(trainer, record, args, asked, again)
    except BaseException:
        lock.release()
        raise
    print(f"device: {device}, {record.content['device_name']}")
    if isinstance(device, chainer.backend.GpuDevice):
        print(cudnn.describe())
    print(describe(args, data))
    return trainer, record, lock


def open_output(out: str) -> training.RunLock:
    """Makes the output folder and locks it."""
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ValueError(
            f"the output folder {out} cannot be made ({e.strerror}): name another "
            "with --out"
        ) from e
    return training.RunLock(out)


def begin(
    trainer, record: RunRecord, args: argparse.Namespace, asked: str | bool, again: bool
) -> None:
    """Makes the locked output folder that of the run.

    Raises:
        ValueError: If another run has been there since the folder was looked at.
    """
    with naming("out", "resume"):
        training.check_output(args.out, args.resume, again)
        if asked and newest_snapshot(asked, args.out)[0] != args.resume:
            raise ValueError(f"another run has just written into {args.out}: try again")
    training.remove_leftovers(args.out)
    log = trainer.get_extension("LogReport").log
    if args.resume:
        # What came after an older snapshot is another branch, which ends here.
        write_log(args.out, log)
        for difference in record.differences:
            print(
                f"warning: {difference}: the numbers may differ from those of a run "
                "without a break",
                file=sys.stderr,
            )
    elif again:
        Path(args.out, "log").unlink(missing_ok=True)
    record.start(log)


def keeping(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what the arguments say about snapshots and the end, for the Trainer."""
    every = args.snapshot_every
    return {
        "n_retains": args.keep,
        "snapshot_every": None if every is None else parse_every(every),
        "keep_best": (args.keep_best, lower_is_better(args.keep_best)),
        "early_stopping": args.early_stopping,
    }


def epochs_done(updater) -> float:
    """Returns how many epochs are done, with a share of one in the middle of it."""
    whole = updater.is_new_epoch or updater.iteration == 0
    return updater.epoch if whole else round(updater.epoch_detail, 4)


def _find_out(args: argparse.Namespace) -> str:
    """Returns the output folder that arguments mean."""
    if args.out is None:
        args = argparse.Namespace(**vars(args))
        fill_in(args, lookup(models.MODELS, args.model, "model"))
    return args.out


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
            shift = MixupShift(attribute, values, (0, n_iteration), policy)
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


def fill_in(args: argparse.Namespace, model_class: Any) -> None:
    """Fills in the defaults that depend on other arguments, and checks them."""
    kind = datasets.kind_of(args.dataset)
    if args.epoch is None:
        args.epoch = options.EPOCH[kind]
    if args.batchsize is None:
        args.batchsize = options.BATCHSIZE[kind]
    if kind == "folder:PATH" and args.size is None:
        args.size = options.FOLDER_SIZE
    if args.lr is None:
        args.lr = training.OPTIMIZERS[args.optimizer]
    if args.mixup == "input" and args.layer_mix not in (None, [0]):
        raise ValueError("--layer-mix chooses layers for --mixup manifold, not input")
    if args.mixup == "none":
        for option in options.options_with(options.MIXING):
            is_given = getattr(args, option.name) != option.default
            if is_given and options.MAIN not in option.tags:
                raise ValueError(
                    f"{option.flag} is for --mixup manifold or input, not none"
                )
        args.alpha = 0.0
    elif args.mixup == "input":
        args.layer_mix = [0]
    elif args.layer_mix is None:
        args.layer_mix = list(model_class.default_layer_mix)
    if args.workers and args.data_on_device:
        raise ValueError(
            "--workers is for images that are read one by one, not for "
            "--data-on-device: leave one of them out"
        )
    if args.loss_scale is not None and args.dtype == "float32":
        raise ValueError("--loss-scale is for --dtype float16 or mixed16, not float32")
    if args.dtype == "float16" and args.optimizer in ("adam", "adamw"):
        raise ValueError(
            f"--dtype float16 is not for --optimizer {args.optimizer}, since squares "
            "of gradients vanish in it: use --dtype mixed16, or momentum_sgd"
        )
    if args.optimizer in ("adam", "adamw") and args.momentum != 0.9:
        raise ValueError(
            f"--momentum is for --optimizer sgd, momentum_sgd and nesterov, not "
            f"{args.optimizer}"
        )
    if args.nesterov and args.optimizer != "sgd":
        raise ValueError(f"--nesterov is for --optimizer sgd, not {args.optimizer}")
    if args.nesterov and not args.momentum:
        raise ValueError("--nesterov needs a --momentum above 0, such as 0.9")
    check_rate(args)
    if args.switch_prob != 0.5 and 0 in (args.alpha, args.cutmix_alpha):
        raise ValueError("--switch-prob is for --cutmix-alpha and --alpha above 0")
    if args.fixed_lam is not None and args.alpha_end is not None:
        raise ValueError("--alpha-end changes nothing with --fixed-lam: leave out one")
    if args.mixup_off_epoch is not None and args.mixup_off_epoch >= args.epoch:
        raise ValueError(
            f"--mixup-off-epoch {args.mixup_off_epoch} is not before the end, --epoch "
            f"{args.epoch}: leave it out, or choose an earlier one"
        )
    if args.out is None:
        args.out = default_out(args, model_class)


def check_rate(args: argparse.Namespace) -> None:
    """Checks that what is to happen to the learning rate happens before the end."""
    late = [drop for drop in args.lr_drop if drop >= args.epoch]
    if late:
        raise ValueError(
            f"--lr-drop {late[0]} never comes, for --epoch is {args.epoch}: choose an "
            "earlier one, or train longer"
        )
    if args.lr_drop and args.cosine:
        raise ValueError("--cosine and --lr-drop both lower the rate: leave out one")
    if args.warmup >= args.epoch:
        raise ValueError(
            f"--warmup {args.warmup} takes all of --epoch {args.epoch}: choose less"
        )
    if args.grad_clip is not None and args.dtype != "float32":
        # Chainer's hook looks at gradients that are still scaled.
        raise ValueError(f"--grad-clip is for --dtype float32, not {args.dtype}")


def default_out(args: argparse.Namespace, model_class: Any) -> str:
    """Names the output folder by what sets one run apart from others."""
    name = f"{datasets.short_name(args.dataset)}_{args.model}_{args.mixup}"
    if args.mixup != "none":
        name += f"_alpha{args.alpha:g}"
    layers = list(model_class.default_layer_mix)
    if args.mixup == "manifold" and args.layer_mix != layers:
        name += f"_layer{'-'.join(map(str, args.layer_mix))}"
    name = "_".join([name, *options.changed_words(args)])
    if args.train_size is not None:
        name += f"_n{args.train_size}"
    if args.label_noise:
        name += f"_noise{args.label_noise:g}"
    return os.path.join("result", f"{name}_seed{args.seed}")


def describe(args: argparse.Namespace, data: Mapping[str, Any]) -> str:
    """Returns the setting in one line."""
    name = datasets.short_name(args.dataset)
    mixing = "no mixup"
    if args.mixup != "none":
        layers = " ".join(map(str, args.layer_mix))
        mixing = f"{args.mixup} mixup with alpha {args.alpha:g} at layer {layers}"
    changed = "".join(f", {word}" for word in options.changed_words(args))
    return (
        f"setting: {args.model} on {name} ({data['n_train']} training and "
        f"{data['n_held_out']} {data['held_out']} images), {mixing}{changed}, "
        f"{args.optimizer} with lr {args.lr:g}, batches of {args.batchsize}, "
        f"{args.epoch} epochs, seed {args.seed}"
    )


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.2%}"
