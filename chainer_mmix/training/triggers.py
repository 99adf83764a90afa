"""The triggers by which a run ends and saves.

They save no state of their own, which the snapshot of a run with other arguments would
lack: they go by the log, which is in each snapshot.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import chainer
import numpy as np
from chainer.training import extensions

from chainer_mmix.checks import check_number, check_whole
from chainer_mmix.training.extensions.fail_on_nonnumber import FailOnNonNumber

# What the extensions of a Trainer log besides.
_OF_EXTENSIONS = "lr", "epoch", "iteration", "elapsed_time"


class MetricError(ValueError):
    """The log lacks the number by which the best epoch is to be found."""


class EndTrigger:
    """Fires when a run is to end: after its last epoch, or by early stopping.

    Args:
        log_report (~chainer.training.extensions.LogReport): The log of its epochs.
        epoch (int): The last epoch.
        best (tuple): A key of the log and whether less is better, or ``None``.
        patience (int): End after so many epochs without a better value, or ``None``.

    Raises:
        TypeError: If ``best`` is not such a pair.
        ValueError: If ``patience`` is less than 1, or comes without ``best``.
    """

    def __init__(
        self,
        log_report: extensions.LogReport,
        epoch: int,
        best: tuple[str, bool] | None = None,
        patience: int | None = None,
    ) -> None:
        if best is not None:
            _check_keep_best(best)
        if patience is not None:
            check_whole("early_stopping", patience, 1)
            if best is None:
                raise ValueError(
                    "early_stopping needs keep_best, which says what is better"
                )
        self._log_report = log_report
        self._epoch = epoch
        self._best = best
        self._patience = patience
        self._known: tuple[set[str], set[str]] | None = None
        self._begin: int | None = None

    def know(self, trainer: chainer.training.Trainer, names: Iterable[str]) -> None:
        """Lets it see after the first step whether the log will have the key.

        It cannot tell if more extensions are added, which may log what they like.

        Args:
            trainer (~chainer.training.Trainer): Has all its own extensions.
            names (iterable of str): What the evaluation reports.
        """
        self._known = set(trainer._extensions), {*names, *_OF_EXTENSIONS}

    def _check_key(self, trainer: chainer.training.Trainer) -> None:
        if self._best is None or self._known is None:
            return
        if self._begin is None:
            self._begin = trainer.updater.iteration
        if trainer.updater.iteration == self._begin or not trainer.observation:
            return
        (own, names), self._known = self._known, None
        names |= trainer.observation.keys()
        key, _ = self._best
        if own == set(trainer._extensions) and not (
            key in names or key.startswith("mixup/")
        ):
            raise _no_such_key(key, names)

    def __call__(self, trainer: chainer.training.Trainer) -> bool:
        self._check_key(trainer)
        return trainer.updater.epoch >= self._epoch or (
            self._patience is not None and self._since_best() >= self._patience
        )

    def get_training_length(self) -> tuple[int, str]:
        """Returns how long it is, for a progress bar."""
        return self._epoch, "epoch"

    def is_best(self, trainer: chainer.training.Trainer) -> bool:
        """Tells whether the epoch that has just ended is the best."""
        return trainer.updater.is_new_epoch and self._since_best() == 0

    def _since_best(self) -> int:
        """Returns how many epochs ago the first of the best ones was."""
        if self._best is None:
            return 0
        key, lower_is_better = self._best
        log = self._log_report.log
        values = [entry.get(key, math.nan) for entry in log]
        if log and not any(key in entry for entry in log):
            raise _no_such_key(key, log[-1])
        signed = [-v if lower_is_better else v for v in values]
        scores = [-math.inf if math.isnan(v) else v for v in signed]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0


class SnapshotTrigger:
    """Fires at the end of each epoch, and every so many iterations or minutes.

    In the middle of an epoch it looks at all parameters first, so that the snapshot is
    a good one.

    Args:
        guard (FailOnNonNumber): Looks at the parameters.
        every (tuple): A number and ``"iterations"`` or ``"minutes"``, or ``None``.
        largest (callable): Returns the largest of the values of all ranks, which have
            clocks of their own. The default is for one.

    Raises:
        ValueError: If ``every`` is not such a pair.
    """

    def __init__(
        self,
        guard: FailOnNonNumber,
        every: tuple[float, str] | None = None,
        largest: Callable[[float], float] = float,
    ) -> None:
        if every is not None:
            _check_snapshot_every(every)
        self._guard = guard
        self._every = every
        self._largest = largest
        self._saved = time.monotonic()

    def __call__(self, trainer: chainer.training.Trainer) -> bool:
        updater = trainer.updater
        fires = updater.is_new_epoch
        if self._every is not None and not fires:
            number, unit = self._every
            if unit == "iterations":
                fires = updater.iteration % number == 0
            else:
                fires = self._largest(time.monotonic() - self._saved) >= 60 * number
            if fires:
                self._guard.check_parameters(trainer)
        if fires:
            self._saved = time.monotonic()
        return fires


def _no_such_key(key: str, names: Iterable[str]) -> MetricError:
    return MetricError(
        f"there is no {key} in the log to find the best epoch by: choose one of "
        f"{', '.join(sorted(names))}"
    )


def _check_keep_best(best: Any) -> None:
    """Raises a TypeError unless it is a key and a bool."""
    if isinstance(best, (tuple, list)) and len(best) == 2:
        key, lower_is_better = best
        if isinstance(key, str) and isinstance(lower_is_better, (bool, np.bool_)):
            return
    raise TypeError(
        "keep_best must be a key of the log and whether less is better, as "
        f"('validation/main/accuracy', False) or ('validation/main/loss', True), not "
        f"{best!r}"
    )


def _check_snapshot_every(every: Any) -> None:
    """Raises a ValueError unless it is a number and a unit."""
    if isinstance(every, (tuple, list)) and len(every) == 2:
        number, unit = every
        if unit == "iterations":
            return check_whole("snapshot_every", number, 1)
        if unit == "minutes":
            return check_number("snapshot_every", number, exclusive=True)
    raise ValueError(
        "snapshot_every must be a number and a unit, (500, 'iterations') or "
        f"(10, 'minutes'), not {every!r}; each epoch ends with a snapshot anyway"
    )
