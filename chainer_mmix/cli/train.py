"""Trains a network with Manifold Mixup, with input mixup, or without mixing."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import chainer
import numpy as np
from chainer.training.extensions import observe_value

import chainer_mmix
from chainer_mmix import datasets, models, training
from chainer_mmix.cli import options, recipes
from chainer_mmix.cli.argument_types import parse_every
from chainer_mmix.cli.arguments import check_best, check_pasting, describe, fill_in
from chainer_mmix.cli.augmentation import check_image, transforms_of
from chainer_mmix.cli.options import naming
from chainer_mmix.cli.parser import Parser
from chainer_mmix.cli.ranks import (
    check_ranks,
    ending_all,
    find_device,
    find_ranks,
    quiet_ranks,
    scale_rate,
    warn_of_one_rank,
)
from chainer_mmix.cli.resume import (
    check_same_data,
    check_same_run,
    newest_snapshot,
    parse,
)
from chainer_mmix.cli.streams import lasting_streams, plain_warnings
from chainer_mmix.lookup import lookup
from chainer_mmix.mixing import Remix
from chainer_mmix.runs.log import write_log
from chainer_mmix.runs.metric import lower_is_better
from chainer_mmix.runs.record import RunRecord, read_record
from chainer_mmix.training.extensions import (
    DivergedError,
    MixupOff,
    MixupShift,
    TensorBoardReport,
)
from chainer_mmix.training.multinode import Ranks, Watchdog, synchronize_statistics
from chainer_revive import cudnn, registry
from chainer_revive.cpu import compiled
from chainer_revive.gpu_check import faults

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
    parser = Parser(
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
    words = list(sys.argv[1:] if argv is None else argv)
    with quiet_ranks(errors=True):
        given = parser.parse_args(words)
    try:
        ranks = find_ranks(given, words)
    except (ImportError, ValueError) as e:
        with ending_all(e):
            parser.error(" ".join(str(e).split()))  # one line
    if given.recipe == "list":
        with quiet_ranks():
            print(recipes.table())
        return 0
    with quiet_ranks():
        try:
            check_ranks(given, words, ranks)
            args = ranks.on_first(lambda: parse(parser, words, _find_out))
        except ValueError as e:
            refuse(parser, ranks, e)
        dtype = training.DTYPES[args.dtype]
        config = chainer.using_config("dtype", dtype)
        with lasting_streams(), config, plain_warnings(prog, ranks.is_first):
            return train(parser, args, words, ranks)


def refuse(parser: argparse.ArgumentParser, ranks: Ranks, error: Exception) -> NoReturn:
    """Ends the command, on all ranks, with what was wrong in one line."""
    text = " ".join(str(error).split())
    if ranks.is_first and text:
        parser.error(text)
    sys.exit(2)


def train(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    words: Sequence[str],
    ranks: Ranks,
) -> int:
    """Trains as the arguments say; see :func:`main`."""
    compiled.before_compiling = _tell_of_compiling
    watchdog = Watchdog(ranks, args.rank_timeout)
    stop = functools.partial(_stop, parser.prog, args)
    try:
        command = f"{parser.prog} {shlex.join(words)}"
        trainer, record, locks = prepare(args, command, ranks)
        if training.is_done(trainer):
            watchdog.close()
            return finish(args, trainer)
    except (ImportError, OSError, ValueError) as e:
        try:
            ranks.fail(e)
        except (ImportError, OSError, ValueError) as error:
            watchdog.close()
            refuse(parser, ranks, error)
    except KeyboardInterrupt:
        return _end(ranks, stop("interrupted", code=130))
    watchdog.watch(trainer)
    try:
        training.run(trainer, record, ranks)
    except datasets.UnreadablePictureError as e:
        remedy = (
            "put a whole picture there and go on with --resume, or train anew with "
            "--skip-corrupt"
        )
        return _end(ranks, stop(f"the training stopped: {e}", remedy=remedy))
    except training.WorkerDiedError as e:
        remedy = "go on with --resume, if need be with fewer --workers"
        return _end(ranks, stop(f"the training failed: {e}", remedy=remedy))
    except OSError as e:
        on = f" on rank {ranks.rank}" if ranks.rank else ""
        what = f"{e.filename}: {e.strerror}" if e.filename else e.strerror or str(e)
        return _end(ranks, stop(f"the training failed{on}: {what}"))
    except KeyboardInterrupt:
        return _end(ranks, stop("interrupted", code=130))
    except (DivergedError, training.MetricError, training.StoppedError) as e:
        # On all ranks alike.
        watchdog.close()
        code = 128 + e.signum if isinstance(e, training.StoppedError) else 1
        if not ranks.is_first:
            return code
        if isinstance(e, training.StoppedError):
            return stop(str(e), code=code)
        if isinstance(e, training.MetricError):
            return stop(str(e), remedy="name another --keep-best")
        remedy = f"try a lower --lr than {args.lr:g}, or a larger --batchsize"
        return stop(f"the training failed: {e}", remedy=remedy)
    except (RuntimeError, MemoryError) as e:
        if (fault := faults.sentence(e)) is None:
            raise
        return _end(ranks, stop(f"the training failed: {fault}"))
    finally:
        locks.close()
    watchdog.close()
    if record is None:
        return 0
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


def _tell_of_compiling() -> None:
    print("compiling loops for this machine, once: some seconds", flush=True)


def _end(ranks: Ranks, code: int) -> int:
    """Ends the other ranks, which know nothing of what has stopped this one."""
    ranks.abort(code)
    return code


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


def _stop(
    prog: str, args: argparse.Namespace, reason: str, code: int = 1, remedy: str = ""
) -> int:
    """Says why a run has ended and how it goes on; returns the exit code."""
    out = args.out
    try:
        last = out and training.find_snapshot(out)
    except OSError:
        last = None
    kept = f"the last good snapshot is {last}" if last else "no snapshot yet"
    remedy = remedy or f"go on with {prog} --resume {shlex.quote(str(out))}"
    print(f"{prog}: {reason}; {kept}; {remedy}", file=sys.stderr)
    return code


def prepare(args: argparse.Namespace, command: str, ranks: Ranks) -> tuple:
    """Checks all arguments and builds everything, the output folder last.

    Args:
        args (argparse.Namespace): What the parser gave; defaults are filled in.
        command (str): The command line, for the record.
        ranks (Ranks): The processes that train together, all of which prepare it.

    Returns:
        tuple: The Trainer, the :class:`~chainer_mmix.training.RunRecord` and the lock
        of the output folder; no record on other ranks than the first, and nothing to
        release there or where nothing is left to train.

    Raises:
        ImportError, OSError, ValueError: If something is wrong, in one sentence.
    """
    tensorboard = TensorBoardReport() if args.tensorboard else None
    with naming("gpu", "device"):
        device = find_device(args, ranks)
    if isinstance(device, chainer.backend.GpuDevice):
        device.use()
        registry.decide()
    if args.graph and not isinstance(device, chainer.backend.GpuDevice):
        raise ValueError(
            f"--graph is for a GPU, not {device}: leave it out, or add --gpu"
        )
    model_class = lookup(models.MODELS, args.model, "model")
    fill_in(args, model_class)
    rate_scale = scale_rate(args, options.LR_SCALING, ranks.size)
    if ranks.size == 1:
        warn_of_one_rank(args)
    with naming("dataset"):
        dataset = datasets.find(
            args.dataset,
            data_root=args.data_root,
            size=args.size,
            validation_split=args.validation_split,
            seed=args.seed,
            skip_corrupt=args.skip_corrupt,
        )
    asked = args.resume
    if asked:
        args.resume = ranks.on_first(lambda: _find_snapshot(asked, args.out, ranks))
    again = bool(asked) and args.resume is None
    arguments = vars(args) | {"device": str(device)}

    training.set_seed(args.seed, device)
    bounds = "cutmix_minmax", "resizemix_minmax"
    with naming(*[name for name in bounds if getattr(args, name)]):
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
            cutmix_minmax=args.cutmix_minmax,
            fmix_alpha=args.fmix_alpha or 0.0,
            resizemix_minmax=args.resizemix_minmax,
            common_draw=args.common_draw,
        )
    n_class = dataset.n_class
    if args.top_k is not None and args.top_k >= n_class:
        most = f"choose at most {n_class - 1}" if n_class > 2 else "leave it out"
        raise ValueError(
            f"--top-k {args.top_k} is not below the {n_class} classes: {most}"
        )
    classifier = chainer_mmix.ManifoldMixupClassifier(
        models.make_model(
            args.model,
            n_class,
            stem=args.stem,
            downsample_fb=args.downsample_fb,
            published=args.published,
            stem_stride=args.stem_stride,
        ),
        mixup_hidden=args.mixup != "none",
        lossfun=options.LOSSES[args.loss],
        policy=policy,
        label_smoothing=args.label_smoothing,
        clean_weight=args.clean_weight or 0.0,
        top_k=args.top_k,
    )
    check_best(args.keep_best, classifier)
    if args.sync_bn and ranks.communicator is not None:
        with naming("sync_bn"):
            synchronize_statistics(classifier, ranks.communicator)

    def check() -> None:
        if args.resume:
            # A schedule ends with the last epoch.
            scheduled = args.alpha_end is not None or args.mixup_prob_end is not None
            fixed = {"epoch", "batchsize"} if scheduled or args.cosine else ()
            folder = os.path.dirname(args.resume) or "."
            check_same_run(folder, arguments, fixed)
            before = read_record(Path(folder)).get("ranks", ranks.size)
            if scheduled and before != ranks.size:
                raise ValueError(
                    f"--alpha-end and --mixup-prob-end go by iterations, and {folder} "
                    f"is of {before} ranks, not {ranks.size}: resume with as many"
                )
        with naming("out", "resume"):
            training.check_output(args.out, args.resume, again)

    ranks.on_first(check)
    splits = ranks.in_turn(
        lambda: datasets.load_splits(
            dataset,
            name=args.dataset,
            train_size=args.train_size,
            label_noise=args.label_noise,
            augment=args.augment,
            seed=args.seed,
        )
    )
    train, held_out = splits.train, splits.held_out
    data = {
        "n_train": len(train),
        "n_held_out": len(held_out),
        "held_out": splits.held_out_name,
        "class_names": list(splits.class_names),
    }
    if args.resume:
        ranks.on_first(lambda: check_same_data(args.resume, data))
    data |= datasets.describe_inputs(held_out)
    if args.remix_kappa is not None:
        labels = datasets.labels_of(datasets.without_augmentation(train))
        counts = np.bincount(labels, minlength=n_class)
        ratio = counts.max() / counts[counts > 0].min()
        if ratio < args.remix_kappa:
            raise ValueError(
                f"--remix-kappa {args.remix_kappa:g} changes nothing: the largest "
                f"class has {ratio:.3g} times as many training images as the "
                "smallest; choose a lower one, or leave it out"
            )
        tau = 0.5 if args.remix_tau is None else args.remix_tau
        classifier.remix = Remix(counts, args.remix_kappa, tau)
    constants = standardise(args, classifier.predictor, train)
    if constants:
        data["standardise"] = constants
    transforms = transforms_of(args, constants.get("mean", [0.0]))
    check_image(transforms, held_out[0][0])
    train = datasets.transformed(train, list(transforms.values()))
    batchsize = args.batchsize * ranks.size
    if batchsize > len(train):
        on = f" on {ranks.size} ranks" if ranks.size > 1 else ""
        raise ValueError(
            f"--batchsize {args.batchsize}{on} is more than the {len(train)} training "
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
        warmup=args.warmup or 0,
        cosine=args.cosine,
        quiet=args.quiet,
        graph=args.graph,
        data_on_device=args.data_on_device,
        workers=args.workers,
        ranks=ranks,
        rate_scale=rate_scale,
        **keeping(args),
    )
    if policy.pastes:
        check_pasting(classifier, held_out[0], device, options.pasting(args)[0])
    at_end = {"epoch": args.epoch, "batchsize": args.batchsize, "device": device}
    if args.analyse and ranks.is_first:
        names = splits.class_names
        training.analyse(trainer, train, held_out, class_names=names, **at_end)
    if splits.test is not None and splits.test is not held_out:
        training.evaluate_at_end(trainer, splits.test, **at_end, ranks=ranks)
    if tensorboard and ranks.is_first:
        trainer.extend(tensorboard)
    schedule(trainer, args, policy, -(-args.epoch * len(train) // batchsize))
    if args.pretrained and not args.resume:
        models.load_pretrained(classifier.predictor, args.pretrained)
    if args.resume:
        with naming("resume"):
            # Others need not see the folder.
            members = ranks.on_first(lambda: training.read_snapshot(args.resume))
            training.load_snapshot(args.resume, trainer, members)
        stop = trainer.get_extension("StopOnSignal")
        if ranks.size > 1 and not stop.can_go_on(trainer):
            raise ValueError(
                f"{args.resume} was saved in the middle of an analysis, which one "
                "process makes: go on with one, not with ranks"
            )
    if args.resume and training.is_done(trainer):
        if ranks.size > 1 and args.analyse and not training.is_analysed(trainer):
            raise ValueError("--analyse of a finished run takes one process, not ranks")
        return trainer, None, None

    locks = contextlib.ExitStack()
    records = []

    def open_() -> None:
        record = RunRecord(
            args.out,
            arguments,
            command,
            device,
            args.seed,
            resumed_from=args.resume,
            epoch=epochs_done(trainer.updater),
            setting=options.setting_of(args, ranks.size),
            data=data,
            ranks=ranks.size,
        )
        locks.callback(open_output(args.out, ranks).release)
        try:
            begin(trainer, record, args, asked, again)
        except BaseException:
            locks.close()
            raise
        records.append(record)

    ranks.on_first(open_)
    if not records:
        return trainer, None, locks
    (record,) = records
    print(f"device: {device}, {record.content['device_name']}")
    if isinstance(device, chainer.backend.GpuDevice):
        print(cudnn.describe())
    print(describe(args, data, ranks.size, rate_scale))
    return trainer, record, locks


def standardise(
    args: argparse.Namespace, predictor: Any, train: Sequence
) -> dict[str, list[float]]:
    """Has a predictor standardise its input, if that is wanted.

    Returns:
        dict: The constants, ``mean`` and ``std``, if there are any: those in the record
        of a run that is resumed, or those of the training images.
    """
    if args.standardise is None:
        return {}
    known = {}
    if args.resume:
        data = read_record(Path(args.resume).parent).get("data", {})
        known = data.get("standardise", {})
    if not known:
        with naming("standardise"):
            plain = datasets.without_augmentation(train)
            found = datasets.standardisation(args.standardise, plain)
        if found is None:
            predictor.standardise(None, None)
            return {}
        known = {key: list(values) for key, values in found._asdict().items()}
    predictor.standardise(**known)
    return known


def _find_snapshot(asked: str | bool, out: str, ranks: Ranks) -> str | None:
    """Finds the snapshot to go on from; says which newer ones are damaged."""
    if os.path.isdir(out) and os.access(out, os.W_OK):
        # A run at work there would take away the snapshot that is found.
        lock(out, ranks).release()
    with naming("resume"):
        found, flaws = newest_snapshot(asked, out)
    for flaw in flaws:
        print(f"warning: {flaw}: going on from {found}", file=sys.stderr)
    return found


def lock(out: str, ranks: Ranks) -> training.RunLock:
    """Locks the output folder.

    The ranks of a run that mpiexec has ended may live on for a moment.
    """
    until = time.monotonic() + (10 if ranks.size > 1 else 0)
    while True:
        try:
            return training.RunLock(out)
        except training.LockedError:
            if time.monotonic() >= until:
                raise
        time.sleep(0.5)


def open_output(out: str, ranks: Ranks) -> training.RunLock:
    """Makes the output folder and locks it."""
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ValueError(
            f"the output folder {out} cannot be made ({e.strerror}): name another "
            "with --out"
        ) from e
    return lock(out, ranks)


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


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.2%}"
