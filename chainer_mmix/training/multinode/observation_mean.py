from __future__ import annotations

from typing import Any

import chainer
import numpy as np
from chainer.backends import cuda
from chainer.training import extension


class ObservationMean(extension.Extension):
    """Puts the mean over all ranks in the place of each number that is reported.

    It belongs on every rank. A number that only some ranks report, such as the loss of
    a mixing point that they have drawn, becomes the mean over these, on all ranks; the
    loss of a mixing point then has the number of these ranks as its weight. A tuple
    ``(value, weight)``, with an integer weight, is weighed. If a number is
    NaN on one rank, it is NaN on all, so that a
    :class:`~chainer_mmix.training.extensions.FailOnNonNumber`, which comes later, stops
    them all in the same iteration.

    One message of a few hundred bytes is reduced an iteration, unlike the pickled
    objects of :class:`chainermn.extensions.ObservationAggregator`, one for each number.
    On a GPU it waits for the device.

    Args:
        communicator (~chainermn.CommunicatorBase): One of ChainerMN's.
    """

    trigger = 1, "iteration"
    priority = extension.PRIORITY_WRITER + 120  # before FailOnNonNumber

    def __init__(self, communicator: Any) -> None:
        self._mpi_comm = communicator.mpi_comm
        self._keys: list[str] = []  # the same on all ranks

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        own = {
            key: pair
            for key, value in trainer.observation.items()
            if (pair := _weighted(value)) is not None
        }
        sums, weights = self._sum(own)
        for key, total, weight in zip(self._keys, sums, weights, strict=True):
            if weight > 0:
                mean = total / weight
                is_pair = isinstance(trainer.observation.get(key), tuple)
                # Of a mixing point, by how many ranks it was drawn.
                is_pair |= "mixup/loss/" in key
                # An integer, which alone a snapshot can hold.
                trainer.observation[key] = (mean, round(weight)) if is_pair else mean

    def _sum(self, own: dict[str, tuple[float, float]]) -> np.ndarray:
        while True:
            new = own.keys() - set(self._keys)
            # The last column counts the ranks that have names of their own.
            table = np.zeros((2, len(self._keys) + 1))
            table[0, -1] = bool(new)
            for i, key in enumerate(self._keys):
                if key in own:
                    value, weight = own[key]
                    table[:, i] = value * weight, weight
            total = np.empty_like(table)
            self._mpi_comm.Allreduce(table, total)
            if not total[0, -1]:
                return total[:, :-1]
            names = self._mpi_comm.allgather(sorted(new))
            self._keys = sorted(set(self._keys).union(*names))


def _weighted(value: Any) -> tuple[float, float] | None:
    """Returns a number and its weight; ``None`` for what is no number."""
    value, weight = value if isinstance(value, tuple) else (value, 1.0)
    array = np.asarray(cuda.to_cpu(chainer.as_array(value)))
    if array.ndim or array.dtype.kind not in "fiub":
        return None
    return float(array), float(cuda.to_cpu(weight))
