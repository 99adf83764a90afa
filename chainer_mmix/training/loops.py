"""The compiled side of :mod:`chainer_mmix.training.sgd`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from chainer_revive.cpu.numba import threads
from chainer_revive.cpu.numba.elementwise import GRAIN, part
from chainer_revive.cpu.numba.intrinsics import floats, unpack
from chainer_revive.cpu.numba.later import carray
from chainer_revive.cpu.numba.threads import Task


class Step(NamedTuple):
    """Parameter, gradient and velocity; ``rates``, float32 (3,), as given."""

    p: np.ndarray
    g: np.ndarray
    v: np.ndarray
    rates: np.ndarray
    nesterov: int


def sgd(
    p, g, v, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> None:
    """Makes a step in one pass, rounded as NumPy rounds it.

    The arrays are contiguous, of float32 and of one shape.
    """
    rates = np.array([lr, momentum, weight_decay], np.float32)
    threads.run(_sgd, p.size, GRAIN, Step(p, g, v, rates, int(nesterov)))


@Task
def _sgd(arguments, start, stop):
    a = unpack(arguments, Step)
    p = part(a.p, start, stop)
    g = part(a.g, start, stop)
    v = part(a.v, start, stop)
    rates = carray(floats(a.rates), 3)
    lr, momentum, weight_decay = rates[0], rates[1], rates[2]
    for i in range(stop - start):
        d = g[i] + weight_decay * p[i] if weight_decay else g[i]
        v[i] = v[i] * momentum + d
        p[i] -= lr * (d + momentum * v[i] if a.nesterov else v[i])
