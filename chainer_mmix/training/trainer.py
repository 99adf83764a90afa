from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import chainer
import numpy as np
from chainer import training
from chainer.dataset import Converter
from chainer.iterators import SerialIterator
from chainer.serializers import save_npz
from chainer.training import extensions
from chainer.training.updaters import StandardUpdater

from chainer_mmix.datasets import as_bytes
from chainer_mmix.runs.record import RunRecord
from chainer_mmix.training.device_batches import DeviceBatches
from chainer_mmix.training.extensions import (
    Evaluator,
    FailOnNonNumber,
    HalfPrecision,
    LearningRate,
    MixupReport,
    RandomState,
)
from chainer_mmix.training.extensions.plot_report import PlotReport
from chainer_mmix.training.graph_updater import GraphUpdater
from chainer_mmix.training.isolation import isolated
from chainer_mmix.training.precision import convert_bytes, convert_examples, is_half
from chainer_mmix.training.run_progress import RunProgress, SnapshotTrigger
from chainer_mmix.training.stopping import StopOnSignal, StoppedError, stoppable
from chainer_mmix.training.worker_iterator import WorkerIterator

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
    device: chainer.backend.Device,
    lr_drop: Sequence[int] = (),
    n_retains: int = 2,
    snapshot_every: tuple[float, str] | None = None,
    keep_best: tuple[str, bool] | None = None,
    early_stopping: int | None = None,
    quiet: bool = False,
    graph: bool = False,
    data_on_device: bool = False,
    workers: int = 0,
) -> training.Trainer:
    """Builds a Trainer that evaluates, logs, draws and saves.

    In the output folder it keeps ``log``, the pictures ``loss.png`` and
    ``accuracy.png``, ``mixup.json``
    (:class:`~chainer_mmix.training.extensions.MixupReport`) and the newest snapshots.
    Each epoch, a bad loss or parameter stops it first, then it evaluates, logs, draws
    and saves, so that neither log nor snapshot holds a bad epoch.

    Args:
        optimizer (chainer.GradientMethod): Set up with the classifier to train, which
            must be on ``device``.
        train (sequence): Training examples ``(image, label)``.
        test (sequence): Validation examples.
        epoch (int): When to stop.
        batchsize (int): Examples a minibatch, in validation too.
        out (str or path-like): The output folder.
        device (chainer.backend.Device): Where to compute.
        lr_drop (sequence of int): Epochs after which the learning rate is divided
            by 10. The default is none.
        n_retains (int): Snapshots to keep. The default is 2.
        snapshot_every (tuple): When to save besides the end of each epoch:
            ``(n, "iterations")`` or ``(n, "minutes")``. The default is never.
        keep_best (tuple): A key of the log and whether less is better. The snapshot of
            the best epoch is kept too, as ``best_iter_<iteration>``. The default is
            none.
        early_stopping (int): Stop after so many epochs without a better value of that
            key. The default is never.
        quiet (bool): Whether to leave out the table and, on a terminal, the progress
            bar. The default is ``False``.
        graph (bool): Whether to replay CUDA graphs
            (:class:`~chainer_mmix.training.GraphUpdater`). The default is ``False``.
        data_on_device (bool): Whether to keep all examples on the device
            (:class:`~chainer_mmix.training.DeviceBatches`). The default is ``False``.
        workers (int): Processes that read and augment the training examples, and as
            many the validation examples. Batches are the same with any number. The
            default is 0: this process does it.

    Returns:
        ~chainer.training.Trainer: Ready to run, or to be given to
        :func:`~chainer_mmix.training.load_snapshot`.

    Raises:
        ValueError: If there are no examples, or they cannot be kept on the device.
    """
    for name, data in (("train", train), ("test", test)):
        if len(data) == 0:
            raise ValueError(f"{name} has no examples: give at least one")
    _initialize(optimizer.target, test[0], device)
    convert = convert_test = convert_examples
    if data_on_device:
        convert, convert_test = (DeviceBatches(data, device) for data in (train, test))
        train, test = convert.indices, convert_test.indices
    elif workers:
        (train, convert), (test, convert_test) = map(keep_bytes, (train, test))
    updater = (GraphUpdater if graph else StandardUpdater)(
        iterate(train, batchsize, workers),
        optimizer,
        converter=convert,
        device=device,
    )
    log_report = extensions.LogReport()
    progress = RunProgress(log_report, epoch, keep_best, early_stopping)
    trainer = training.Trainer(updater, progress, str(out))
    is_cpu = isinstance(device, chainer.backend.CpuDevice)
    guard = FailOnNonNumber(interval=1 if is_cpu else 20)
    trainer.extend(guard)
    validation = iterate(test, batchsize, workers, repeat=False, shuffle=False)
    trainer.extend(Evaluator(validation, optimizer.target, convert_test, device))
    trainer.extend(LearningRate(lr_drop))
    if is_half():
        trainer.extend(HalfPrecision(optimizer))
    trainer.extend(MixupReport())
    trainer.extend(log_report)
    if not quiet:
        # Triggers without a state, which a snapshot of a quiet run would lack.
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
    trainer.extend(RandomState())
    # Weights hardly shrink by compression, which takes longer than an epoch of digits.
    save = functools.partial(save_npz, compression=False)
    if keep_best is not None:
        best = extensions.snapshot(save, "best_iter_{.updater.iteration}", n_retains=1)
        trainer.extend(best, name="best", trigger=progress.is_best)
    snapshot = extensions.snapshot(savefun=save, n_retains=n_retains)
    trainer.extend(snapshot, trigger=SnapshotTrigger(guard, snapshot_every))

    def save_good(trainer: training.Trainer) -> None:
        guard.check_parameters(trainer)
        snapshot(trainer)

    trainer.extend(StopOnSignal(save_good))
    return trainer


def run(trainer: training.Trainer, record: RunRecord) -> None:
    """Runs a Trainer and keeps its record, whichever way it ends.

    Args:
        trainer (~chainer.training.Trainer): One with a
            :class:`~chainer.training.extensions.LogReport`.
        record (RunRecord): The record, started.

    Raises:
        StoppedError: If a signal stopped it. It is saved.
        Exception: What else stopped the Trainer, once that is recorded.
    """
    log_report = trainer.get_extension("LogReport")

    def fail(reason: str) -> None:
        with contextlib.suppress(OSError):  # the disk may be full
            record.fail(reason, log_report.log, trainer.elapsed_time)

    with stoppable(lambda: fail("stopped at once")):
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
        record.finish(log_report.log, trainer.elapsed_time)


def is_done(trainer: training.Trainer) -> bool:
    """Tells whether a Trainer has come to its end: nothing is left to train or report.

    Args:
        trainer (~chainer.training.Trainer): What :func:`build_trainer` built.
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


def _initialize(model: chainer.Link, example: tuple, device) -> None:
    """Gives parameters their shapes, which a snapshot is checked against."""
    batch = convert_examples([example], device)
    with (
        isolated(model),
        chainer.using_config("train", False),
        chainer.no_backprop_mode(),
    ):
        model(*batch)


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
