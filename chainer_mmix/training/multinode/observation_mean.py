from __future__ import annotations

from typing import Any

import chainer
import numpy as np
from chainer.backends import cuda
from chainer.training import extension


class ObservationMean(extension.Extension):
    """Replaces each reported number by its mean over all ranks.

    It belongs on every rank. If only some ranks report a number, it becomes the mean
    over these, on all ranks. A tuple ``(value, weight)`` with an integer weight, such
    as the loss of a mixing point that only some ranks have drawn, is averaged with its
    weight. If a number is NaN on one rank, it is NaN on all, so that a
    :class:`~chainer_mmix.training.extensions.FailOnNonNumber`, which runs later, stops
    all ranks in the same iteration.

    One message of a few hundred bytes is reduced per iteration, where
    :class:`chainermn.extensions.ObservationAggregator` sends a pickled object for each
    number. On a GPU, it waits for the device.

    Args:
        communicator (~chainermn.CommunicatorBase): One of ChainerMN's communicators.
    """

    trigger = 1, "iteration"
    priority = extension.PRIORITY_WRITER + 120  # before FailOnNonNumber

    def __init__(self, communicator: Any) -> None:
        self._mpi_comm = communicator.mpi_comm
        # Each key, and whether it has weights; the same on all ranks.
        self._keys: dict[str, bool] = {}

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        own = {
            key: found
            for key, value in trainer.observation.items()
            if (found := _weighted(value)) is not None
        }
        sums, weights = self._sum(own)
        totals = zip(self._keys.items(), sums, weights, strict=True)
        for (key, is_pair), total, weight in totals:
            if weight > 0:
                mean = total / weight
                # An integer, which alone a snapshot can hold.
                trainer.observation[key] = (mean, round(weight)) if is_pair else mean

    def _sum(self, own: dict[str, tuple[float, float, bool]]) -> np.ndarray:
        while True:
            new = {key: own[key][2] for key in own.keys() - self._keys.keys()}
            # The last column counts the ranks that have names of their own.
            table = np.zeros((2, len(self._keys) + 1))
            table[0, -1] = bool(new)
            for i, key in enumerate(self._keys):
                if key in own:
                    value, weight, _ = own[key]
                    table[:, i] = value * weight, weight
            total = np.empty_like(table)
            self._mpi_comm.Allreduce(table, total)
            if not total[0, -1]:
                return total[:, :-1]
            for found in self._mpi_comm.allgather(new):
                for key, is_pair in found.items():
                    self._keys[key] = self._keys.get(key, False) or is_pair
            self._keys = dict(sorted(self._keys.items()))


def _weighted(value: Any) -> tuple[float, float, bool] | None:
    """Returns a number, its weight, and whether it had one; ``None`` if it is none."""
    is_pair = isinstance(value, tuple)
    value, weight = value if is_pair else (value, 1.0)
    array = np.asarray(cuda.to_cpu(chainer.as_array(value)))
    if array.ndim or array.dtype.kind not in "fiub":
        return None
    return float(array), float(cuda.to_cpu(weight)), is_pair
