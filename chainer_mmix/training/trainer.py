from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import chainer
import chainer.functions as F
import numpy as np
from chainer import training
from chainer.dataset import Converter
from chainer.iterators import SerialIterator
from chainer.serializers import save_npz
from chainer.training import extensions
from chainer.training.updaters import StandardUpdater
from chainer.utils.type_check import InvalidType

from chainer_mmix.checks import check_number, check_whole
from chainer_mmix.datasets import as_bytes
from chainer_mmix.links.probe import drawing_nothing
from chainer_mmix.lookup import lookup
from chainer_mmix.mixing.criterion import ignored_label
from chainer_mmix.runs.files import RunError
from chainer_mmix.runs.record import RunRecord, check_vacant
from chainer_mmix.training.arguments import check_set_up
from chainer_mmix.training.device import get_device
from chainer_mmix.training.device_batches import DeviceBatches
from chainer_mmix.training.examples import (
    check_dataset,
    check_example,
    check_known_examples,
    check_known_labels,
    first_of,
    is_in_memory,
    written,
)
from chainer_mmix.training.extensions import (
    Evaluator,
    FailOnNonNumber,
    HalfPrecision,
    LearningRate,
    MixupReport,
    NotebookReport,
    RandomState,
)
from chainer_mmix.training.extensions.notebook_report import in_notebook
from chainer_mmix.training.extensions.plot_report import PlotReport
from chainer_mmix.training.graph_updater import GraphUpdater
from chainer_mmix.training.isolation import isolated
from chainer_mmix.training.lock import lock_for_run
from chainer_mmix.training.multinode.observation_mean import ObservationMean
from chainer_mmix.training.multinode.rank_snapshot import RankSnapshot
from chainer_mmix.training.multinode.rank_states import RankStates
from chainer_mmix.training.multinode.ranks import Ranks
from chainer_mmix.training.multinode.shared_order import SharedOrder
from chainer_mmix.training.output import check_writable, remove_leftovers
from chainer_mmix.training.precision import (
    check_hooks,
    convert_bytes,
    convert_examples,
    is_half,
)
from chainer_mmix.training.signals import StopOnSignal, StoppedError, stoppable
from chainer_mmix.training.snapshots import continues_log
from chainer_mmix.training.triggers import EndTrigger, SnapshotTrigger
from chainer_mmix.training.worker_iterator import WorkerIterator
from chainer_revive.example_random import draws_of

_COLUMNS = [
    "epoch",
    "main/loss",
    "validation/main/loss",
    "main/accuracy",
    "validation/main/accuracy",
    "main/lam",
    "lr",
    "elapsed_time",
]


def build_trainer(
    optimizer: chainer.GradientMethod,
    train: Sequence,
    test: Sequence,
    *,
    epoch: int,
    batchsize: int,
    out: str | Path,
    device: chainer.backend.Device | str,
    lr_drop: Sequence[int] = (),
    warmup: int = 0,
    cosine: bool = False,
    n_retains: int = 2,
    snapshot_every: tuple[float, str] | None = None,
    keep_best: tuple[str, bool] | None = None,
    early_stopping: int | None = None,
    quiet: bool = False,
    graph: bool = False,
    data_on_device: bool = False,
    workers: int = 0,
    ranks: Ranks | None = None,
    rate_scale: float = 1.0,
) -> training.Trainer:
    """Builds a Trainer that evaluates, logs, draws and saves.

    The output folder gets ``log``, the pictures ``loss.png`` and ``accuracy.png``,
    ``mixup.json`` (:class:`~chainer_mmix.training.extensions.MixupReport`) and the
    newest snapshots. Each epoch, the loss and the parameters are checked before the
    Trainer evaluates, logs, draws and saves, so neither the log nor a snapshot contains
    a bad epoch.

    Args:
        optimizer (chainer.GradientMethod): Set up with the classifier to train, which
            must be on ``device``.
        train (sequence): Training examples ``(image, label)``, or dicts of what the
            classifier takes by name.
        test (sequence): Validation examples.
        epoch (int): The last epoch.
        batchsize (int): Examples per minibatch, in validation too.
        out (str or path-like): The output folder.
        device (chainer.backend.Device or str): Where to compute, such as ``"@numpy"``.
        lr_drop (sequence of int): Epochs after which the learning rate is divided
            by 10. The default is none.
        warmup (int): Epochs over which the learning rate grows to its value. The
            default is 0.
        cosine (bool): Whether the learning rate then falls to 0 along half a cosine,
            until the last epoch. The default is ``False``.
        n_retains (int): The number of newest snapshots to keep. The default is 2.
        snapshot_every (tuple): When to save a snapshot besides the end of each epoch:
            ``(n, "iterations")`` or ``(n, "minutes")``. The default is never.
        keep_best (tuple): A key of the log, and whether less is better. The snapshot of
            the best epoch is also kept, as ``best_iter_<iteration>``. The default is
            ``None``: no such snapshot. If the log will not have the key, the run ends
            with a :class:`~chainer_mmix.training.MetricError`, after the first step
            unless extensions have been added, which may log it.
        early_stopping (int): Stop after so many epochs without a better value of the
            key in ``keep_best``. The default is never.
        quiet (bool): Whether to leave out the table and the progress bar on a terminal,
            or the :class:`~chainer_mmix.training.extensions.NotebookReport` in a
            notebook. The default is ``False``.
        graph (bool): Whether to replay steps
            (:class:`~chainer_mmix.training.GraphUpdater`), and on a CPU evaluation too
            (:class:`~chainer_mmix.training.extensions.Evaluator`). The default is
            ``False``.
        data_on_device (bool): Whether to keep all examples on the device
            (:class:`~chainer_mmix.training.DeviceBatches`). The default is ``False``.
        workers (int): The number of processes that read and augment the training
            examples; the same number reads the validation examples. Batches do not
            depend on it. The default is 0: this process reads them.
        ranks (Ranks): The processes that train together; all must build a Trainer. Each
            takes ``batchsize`` examples of a minibatch, evaluates its share, and
            reports the means over all. Only the first one prints and writes. The
            default is this process alone.
        rate_scale (float): A factor for the learning rate. The default is 1.

    Returns:
        ~chainer.training.Trainer: Ready to run, or to be given to
        :func:`~chainer_mmix.training.load_snapshot`.

    Raises:
        TypeError: If examples are not pairs, labels are strings, the network does not
            take an example, or ``keep_best`` is not a key and a bool.
        ValueError: If there are no examples, a label is out of range, or examples of
            one minibatch have several shapes, as far as that is known without reading
            images, they cannot be kept on the device, a number is too small, a
            minibatch is larger than ``train``, the folder cannot be written to, the
            optimizer is not set up, or has a hook that would take scaled gradients for
            the gradients, the learning rate would change after the last epoch, or
            ``lr_drop`` comes with ``cosine``, or ``workers`` with ``data_on_device``.
    """
    check_whole("epoch", epoch, 1)
    check_whole("batchsize", batchsize, 1)
    check_whole("n_retains", n_retains, 1)
    check_whole("workers", workers, 0)
    check_number("rate_scale", rate_scale, exclusive=True)
    check_set_up(optimizer)
    check_hooks(optimizer)
    model = optimizer.target
    ranks = ranks or Ranks()
    ranks.on_first(lambda: check_writable(out))
    device = get_device(device)
    falls = epoch if cosine else None
    rate = LearningRate(lr_drop, scale=rate_scale, warmup=warmup, cosine=falls)
    for name, change in (*(("lr_drop", drop) for drop in lr_drop), ("warmup", warmup)):
        if change >= epoch:
            raise ValueError(
                f"{name} {change} is not before the end, epoch {epoch}: choose less, "
                "train longer, or leave it to the run that goes on from there"
            )
    log_report = extensions.LogReport(log_name="log" if ranks.is_first else None)
    end = EndTrigger(log_report, epoch, keep_best, early_stopping)
    is_cpu = isinstance(device, chainer.backend.CpuDevice)
    guard = FailOnNonNumber(interval=1 if is_cpu else 20)
    snapshot_trigger = SnapshotTrigger(guard, snapshot_every, ranks.largest)
    for name, data in (("train", train), ("test", test)):
        check_dataset(data, name)
    with drawing_nothing(device):
        example = first_of(test)
        # A file that is opened here must not be shared with workers.
        is_read = not workers or is_in_memory(train)
        first = first_of(train) if is_read else example
    for name, one in (("test", example), ("train", first)):
        check_example(one, name)
    if batchsize * ranks.size > len(train):
        on = f" on each of {ranks.size} ranks" * (ranks.size > 1)
        raise ValueError(
            f"batchsize {batchsize}{on} is more than the {len(train)} training "
            "examples: choose a smaller one"
        )
    if workers and data_on_device:
        raise ValueError(
            f"workers={workers} is for images that are read one by one, not for "
            "data_on_device: leave one of them out"
        )
    names, n_class = _initialize(model, example, device)
    _check_takes(model, first, example, device)
    if keep_best is not None:
        _check_is_reported(keep_best[0], names)
    check_known_examples(train, "train", batchsize, is_shuffled=True)
    if n_class is not None:
        ignored, key = ignored_label(model.lossfun), getattr(model, "label_key", -1)
        for name, data in (("train", train), ("test", test)):
            check_known_labels(data, name, n_class, ignored, key)
    test = ranks.share_of(test)
    check_known_examples(test, "test", batchsize, is_shuffled=False)
    convert = convert_test = convert_examples
    if data_on_device:
        convert, convert_test = (DeviceBatches(data, device) for data in (train, test))
        train, test = convert.indices, convert_test.indices
    elif workers:
        (train, convert), (test, convert_test) = map(keep_bytes, (train, test))
    together, order = optimizer, None
    if ranks.communicator is not None:
        together, order = _join(optimizer, ranks)
    iterator = iterate(train, batchsize * ranks.size, workers, order_sampler=order)
    if order is not None and workers:
        draws_of(iterator).seeds.choose()  # while all ranks choose the same
    updater = (GraphUpdater if graph else StandardUpdater)(
        iterator, together, converter=convert, device=device
    )
    trainer = training.Trainer(updater, end, str(out))
    trainer.extend(guard)
    validation = iterate(test, batchsize, workers, repeat=False, shuffle=False)
    evaluator = Evaluator(validation, model, convert_test, device, graph=graph)
    trainer.extend(ranks.evaluator(evaluator))
    trainer.extend(rate)
    if is_half():
        trainer.extend(HalfPrecision(optimizer))
    trainer.extend(MixupReport(communicator=ranks.communicator))
    trainer.extend(log_report)
    if ranks.is_first:
        _show(trainer, quiet)
    if order is None:
        trainer.extend(RandomState())
    else:
        from chainermn.extensions import AllreducePersistent

        communicator = ranks.communicator
        trainer.extend(ObservationMean(communicator))
        trainer.extend(AllreducePersistent(model, communicator))
        states = RankStates(communicator, order, model)
        trainer.extend(states, name="RandomState")
    # Weights hardly shrink by compression, which takes longer than an epoch of digits.
    save = functools.partial(save_npz, compression=False)

    def add_snapshot(name: str, trigger: Callable, **options) -> Callable:
        snapshot = extensions.snapshot(save, **options)
        if order is not None:
            snapshot = RankSnapshot(ranks.communicator, snapshot)
        trainer.extend(snapshot, name=name, trigger=trigger)
        return snapshot

    if keep_best is not None:
        best = "best_iter_{.updater.iteration}"
        add_snapshot("best", end.is_best, filename=best, n_retains=1)
    snapshot = add_snapshot("_Snapshot", snapshot_trigger, n_retains=n_retains)

    def save_good(trainer: training.Trainer) -> None:
        guard.check_parameters(trainer)
        snapshot(trainer)

    trainer.extend(StopOnSignal(save_good, ranks.largest))
    known = [f"validation/{name}" for name in names]
    end.know(trainer, [*known, "loss_scale"] if is_half() else known)
    return trainer


def _join(optimizer: chainer.GradientMethod, ranks: Ranks) -> tuple[Any, SharedOrder]:
    """Returns the optimizer of all ranks, whose first step counts, and their order."""
    from chainermn import create_multi_node_optimizer

    ranks.check()
    together = create_multi_node_optimizer(optimizer, ranks.communicator)
    # Which it would do in its first step, and leave that out.
    ranks.communicator.bcast_data(optimizer.target)
    together.is_changed(optimizer.target)
    return together, SharedOrder(ranks)


def _show(trainer: training.Trainer, quiet: bool) -> None:
    """Lets a Trainer print and draw what it logs."""
    # Triggers without a state, which a snapshot of a quiet run would lack.
    if not quiet and in_notebook():
        trainer.extend(NotebookReport(), trigger=lambda trainer: True)
    elif not quiet:
        table = extensions.PrintReport(_COLUMNS, out=_plain(sys.stdout))
        trainer.extend(table, trigger=_is_new_epoch)
        if sys.stdout.isatty():
            bar = extensions.ProgressBar(update_interval=10, out=sys.stdout)
            trainer.extend(bar, trigger=lambda trainer: True)
    for key in ("loss", "accuracy"):
        keys = [f"main/{key}", f"validation/main/{key}"]
        trainer.extend(
            PlotReport(keys, "epoch", _is_new_epoch, filename=f"{key}.png"),
            name=f"plot_{key}",
        )


def run(
    trainer: training.Trainer, record: RunRecord | None, ranks: Ranks | None = None
) -> None:
    """Runs a Trainer and keeps its record, however the run ends.

    It locks the output folder (:class:`~chainer_mmix.training.RunLock`) and removes
    what a killed run has left half-written there.

    Args:
        trainer (~chainer.training.Trainer): A Trainer that :func:`build_trainer` built.
        record (RunRecord): The record, which has been started; ``None`` for no record,
            as on all ranks but the first.
        ranks (Ranks): The processes that train together. The default is this process
            alone.

    Raises:
        LockedError: If another run is writing into the output folder.
        RunError: If the folder holds a run, and the Trainer does not resume it.
        StoppedError: If a signal stopped it. A snapshot has been saved.
        Exception: Any other error of the Trainer, after it has been recorded.
    """
    log_report = trainer.get_extension("LogReport")

    def fail(reason: str) -> None:
        with contextlib.suppress(OSError):  # the disk may be full
            if record is not None:
                record.fail(reason, log_report.log, trainer.elapsed_time)

    ranks = ranks or Ranks()
    with (
        contextlib.ExitStack() as locks,
        stoppable(lambda: fail("stopped at once"), breaks_off=ranks.size == 1),
    ):
        ranks.on_first(lambda: _take_over(trainer, locks))
        try:
            _run(trainer)
        except StoppedError as e:
            if e.extension is not None and trainer.updater.iteration > 0:
                stop = trainer.get_extension("StopOnSignal")
                stop.save_in_iteration(trainer, e.extension)
            fail(str(e))
            raise
        except BaseException as e:
            fail(str(e) or type(e).__name__)
            raise
        if record is not None:
            record.finish(log_report.log, trainer.elapsed_time)


def _take_over(trainer: training.Trainer, locks: contextlib.ExitStack) -> None:
    """Locks the output folder, unless the program has, and checks what it holds."""
    out = Path(trainer.out)
    out.mkdir(parents=True, exist_ok=True)
    locks.callback(lock_for_run(out))
    if trainer.updater.iteration == 0:
        check_vacant(out)
    elif not continues_log(out, trainer.get_extension("LogReport").log):
        raise RunError(
            f"the output folder {out} holds another run than the one that the Trainer "
            "resumes: name another folder, or load a snapshot of this one"
        )
    remove_leftovers(out)


def is_done(trainer: training.Trainer) -> bool:
    """Tells whether a Trainer has finished: nothing is left to train or report.

    Args:
        trainer (~chainer.training.Trainer): A Trainer that :func:`build_trainer` built.
    """
    rest = trainer.get_extension("StopOnSignal").is_in_iteration
    return trainer.stop_trigger(trainer) and not rest


def _run(trainer: training.Trainer) -> None:
    # FailOnNonNumber says it in one sentence.
    with (
        np.errstate(over="ignore", invalid="ignore", divide="ignore"),
        warnings.catch_warnings(),
    ):
        # How dynamic loss scaling finds its scale.
        warnings.filterwarnings("ignore", "Non finite number found in param.grad")
        trainer.run(show_loop_exception_msg=False)


def _initialize(
    model: chainer.Link, example: tuple, device, train: bool = False
) -> tuple[list[str], int | None]:
    """Gives parameters their shapes, which a snapshot is checked against.

    Args:
        model (~chainer.Link): The model.
        example (tuple or dict): What it is called with.
        device (chainer.backend.Device): Where it is.
        train (bool): Whether it is called as in training. The default is ``False``.

    Returns:
        tuple: The names of what the model reports, and the number of classes, ``None``
        if labels need not be class numbers.
    """
    batch = convert_examples([example], device)
    observation: dict[str, Any] = {}
    reporter = chainer.Reporter()
    reporter.add_observer("main", model)
    reporter.add_observers("main", model.namedlinks(skipself=True))
    with (
        isolated(model),
        chainer.using_config("train", train),
        chainer.no_backprop_mode(),
        reporter.scope(observation),
        reporter,
    ):
        model(**batch) if isinstance(batch, dict) else model(*batch)
        shape: Sequence[int] = getattr(getattr(model, "y", None), "shape", ())
    loss = getattr(model, "lossfun", None)
    loss = loss.func if isinstance(loss, functools.partial) else loss
    is_of_classes = loss is F.softmax_cross_entropy and len(shape) == 2
    return sorted(observation), shape[1] if is_of_classes else None


def _check_takes(model: chainer.Link, first: Any, example: Any, device) -> None:
    """Raises an error if a model that takes those of test takes no example of train."""
    if written(first) == written(example):
        return
    errors: list[Exception] = []
    for train in (False, True):  # they may have more parts in training
        try:
            with drawing_nothing(device):
                _initialize(model, first, device, train)
            return
        except (AssertionError, InvalidType, TypeError, ValueError) as e:
            errors.append(e)
        except RuntimeError as e:
            if "Expr instance" not in str(e):  # a type check of Chainer's, too
                raise
            errors.append(e)
    error = errors[0]
    kind = TypeError if isinstance(error, TypeError) else ValueError
    is_said = isinstance(error, (TypeError, ValueError))
    raise kind(
        f"the network takes an example of test, {written(example)}, but none of train, "
        f"{written(first)}: {error if is_said else 'give both the same form'}"
    ) from error


def _check_is_reported(key: str, names: Sequence[str]) -> None:
    """Raises a ValueError if validation does not report the key of ``keep_best``."""
    known = [f"validation/{name}" for name in names]
    if f"validation/main/{key}" in known:
        raise ValueError(
            f"keep_best {key!r} names no number of the log: try 'validation/main/{key}'"
        )
    if key.startswith("validation/main/"):
        lookup(dict.fromkeys(known), key, "keep_best")


def iterate(dataset: Sequence, batchsize: int, workers: int, **options):
    """Iterates over examples, in this process or in others.

    Args:
        dataset (sequence): Examples ``(image, label)``.
        batchsize (int): Examples a minibatch.
        workers (int): Processes that read them; 0 for this one alone.
        options: Passed on to :class:`~chainer.iterators.SerialIterator`.
    """
    if not workers:
        return SerialIterator(dataset, batchsize, **options)
    return WorkerIterator(dataset, batchsize, workers, **options)


def keep_bytes(dataset: Sequence) -> tuple[Sequence, Converter]:
    """Returns examples of bytes, if they are read from files, and their converter."""
    examples = as_bytes(dataset)
    return examples, convert_examples if examples is dataset else convert_bytes


def _is_new_epoch(trainer: training.Trainer) -> bool:
    # PlotReport does not save the state of an IntervalTrigger, so that one would fire
    # in the middle of the first epoch after a resume.
    return trainer.updater.is_new_epoch


def _plain(out: TextIO) -> TextIO | _WithoutErasing:
    return out if out.isatty() else _WithoutErasing(out)


class _WithoutErasing:
    """Keeps the escape code by which PrintReport erases a progress bar out of files."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> None:
        if text != "\033[J":
            self._out.write(text)

    def flush(self) -> None:
        self._out.flush()
