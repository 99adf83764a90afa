"""The Trainer's side: a standard Trainer, exact resume and the record of a run."""

from chainer_mmix.runs.record import RunRecord
from chainer_mmix.training.device import get_device
from chainer_mmix.training.device_batches import DeviceBatches
from chainer_mmix.training.final_analysis import (
    analyse,
    analyse_finished,
    evaluate_at_end,
    is_analysed,
)
from chainer_mmix.training.graph_updater import GraphUpdater
from chainer_mmix.training.lock import LockedError, RunLock
from chainer_mmix.training.optimizers import OPTIMIZERS, make_optimizer
from chainer_mmix.training.output import check_output, remove_leftovers
from chainer_mmix.training.precision import DTYPES, convert_examples, scale_loss
from chainer_mmix.training.seeds import set_seed
from chainer_mmix.training.sgd import SGD
from chainer_mmix.training.signals import StoppedError
from chainer_mmix.training.snapshots import (
    SnapshotError,
    find_best_snapshot,
    find_good_snapshot,
    find_snapshot,
    load_snapshot,
    load_weights,
    read_snapshot,
)
from chainer_mmix.training.trainer import build_trainer, is_done, run
from chainer_mmix.training.triggers import MetricError
from chainer_mmix.training.worker_iterator import WorkerDiedError, WorkerIterator

__all__ = [
    "DTYPES",
    "OPTIMIZERS",
    "SGD",
    "DeviceBatches",
    "GraphUpdater",
    "LockedError",
    "MetricError",
    "RunLock",
    "RunRecord",
    "SnapshotError",
    "StoppedError",
    "WorkerDiedError",
    "WorkerIterator",
    "analyse",
    "analyse_finished",
    "build_trainer",
    "check_output",
    "convert_examples",
    "evaluate_at_end",
    "find_best_snapshot",
    "find_good_snapshot",
    "find_snapshot",
    "get_device",
    "is_analysed",
    "is_done",
    "load_snapshot",
    "load_weights",
    "make_optimizer",
    "read_snapshot",
    "remove_leftovers",
    "run",
    "scale_loss",
    "set_seed",
]
