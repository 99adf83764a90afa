"""Update rules in one pass, rounded as NumPy rounds them.

All arrays have one shape and the same memory layout, without gaps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from chainer_revive.cpu.numba import threads
from chainer_revive.cpu.numba.elementwise import GRAIN, part
from chainer_revive.cpu.numba.intrinsics import floats, unpack
from chainer_revive.cpu.numba.later import carray
from chainer_revive.cpu.numba.threads import Task


class MomentumSGD(NamedTuple):
    """Parameter, gradient and velocity; ``rates``, float32 (2,), as given."""

    p: int
    g: int
    v: int
    rates: int


class Adam(NamedTuple):
    """Parameter, gradient and both moments; ``rates``, float32 (6,), as given."""

    p: int
    g: int
    m: int
    v: int
    rates: int


def momentum_sgd(p, g, v, lr: float, momentum: float) -> None:
    rates = np.array([lr, momentum], np.float32)
    threads.run(_momentum_sgd, p.size, GRAIN, MomentumSGD(p, g, v, rates))


def adam(p, g, m, v, alpha, rate1, rate2, eps, eta, keep) -> None:
    """Steps by Adam; ``keep`` is what decoupled weight decay leaves of p."""
    rates = np.array([alpha, rate1, rate2, eps, eta, keep], np.float32)
    threads.run(_adam, p.size, GRAIN, Adam(p, g, m, v, rates))


@Task
def _momentum_sgd(arguments, start, stop):
    a = unpack(arguments, MomentumSGD)
    p = part(a.p, start, stop)
    g = part(a.g, start, stop)
    v = part(a.v, start, stop)
    rates = carray(floats(a.rates), 2)
    lr, momentum = rates[0], rates[1]
    for i in range(stop - start):
        v[i] = v[i] * momentum - lr * g[i]
        p[i] += v[i]


@Task
def _adam(arguments, start, stop):
    a = unpack(arguments, Adam)
    p = part(a.p, start, stop)
    g = part(a.g, start, stop)
    m = part(a.m, start, stop)
    v = part(a.v, start, stop)
    rates = carray(floats(a.rates), 6)
    alpha, rate1, rate2 = rates[0], rates[1], rates[2]
    eps, eta, keep = rates[3], rates[4], rates[5]
    for i in range(stop - start):
        m[i] += rate1 * (g[i] - m[i])
        v[i] += rate2 * (g[i] * g[i] - v[i])
        p[i] = p[i] * keep - eta * (alpha / (np.sqrt(v[i]) + eps) * m[i])
