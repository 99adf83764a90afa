"""The compiled side of :mod:`chainer_mmix.mixing.kernels`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from chainer_revive.cpu.numba import threads
from chainer_revive.cpu.numba.elementwise import GRAIN
from chainer_revive.cpu.numba.intrinsics import floats, integers, unpack
from chainer_revive.cpu.numba.later import carray
from chainer_revive.cpu.numba.threads import Task


class Mix(NamedTuple):
    """x and y of n samples, ``size`` elements each; weights (2, n); a permutation."""

    x: np.ndarray
    weights: np.ndarray
    perm: np.ndarray
    y: np.ndarray
    size: int
    n: int


def mix(x: np.ndarray, weights: np.ndarray, perm: np.ndarray, y: np.ndarray) -> None:
    """Writes weights[0, n] * x[n] + weights[1, n] * x[perm[n]] to y[n].

    All are of float32 but perm, which is of int64; x and y have the same memory layout.
    """
    n, size = len(x), x.size // len(x)
    threads.run(_mix, n, -(-GRAIN // size), Mix(x, weights, perm, y, size, n))


@Task
def _mix(arguments, start, stop):
    a = unpack(arguments, Mix)
    weights = carray(floats(a.weights), (2, a.n))
    perm = carray(integers(a.perm), stop)
    for n in range(start, stop):
        own = carray(floats(a.x + 4 * n * a.size), a.size)
        other = carray(floats(a.x + 4 * perm[n] * a.size), a.size)
        y = carray(floats(a.y + 4 * n * a.size), a.size)
        for i in range(a.size):
            y[i] = weights[0, n] * own[i] + weights[1, n] * other[i]
