"""Update rules of many parameters in one pass, rounded as NumPy rounds them.

The arrays of a parameter have one shape and the same memory layout, without gaps.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from chainer_revive.cpu.numba import threads
from chainer_revive.cpu.numba.elementwise import GRAIN, part
from chainer_revive.cpu.numba.intrinsics import floats, integers, jit, unpack
from chainer_revive.cpu.numba.later import carray
from chainer_revive.cpu.numba.threads import Task, data_of


class Parameters(NamedTuple):
    """``table``, int64 (n, 3 + states): where the elements of each parameter end among
    all elements, and the ``id`` of parameter, gradient and states. ``rates``,
    float32: for each parameter, as given.
    """

    table: int
    rates: int
    n: int


def momentum_sgd(tensors: Iterable[tuple], rates: Sequence[tuple[float, ...]]) -> None:
    """Steps by momentum SGD.

    Args:
        tensors: Parameter, gradient and velocity, for each parameter.
        rates: Learning rate and momentum, likewise.
    """
    _run(_momentum_sgd, tensors, rates)


def adam(tensors: Iterable[tuple], rates: Sequence[tuple[float, ...]]) -> None:
    """Steps by Adam.

    Args:
        tensors: Parameter, gradient and both moments, for each parameter.
        rates: Likewise, the learning rate, one minus the decay of both moments, eps,
            the multiplier eta, and what decoupled weight decay leaves of a parameter.
    """
    _run(_adam, tensors, rates)


def sgd(tensors: Iterable[tuple], rates: Sequence[tuple[float, ...]]) -> None:
    """Steps as PyTorch's SGD.

    Args:
        tensors: Parameter, gradient and velocity, for each parameter.
        rates: Likewise, the learning rate, momentum, the rate of the L2 penalty, and
            whether momentum is Nesterov's.
    """
    _run(_sgd, tensors, rates)


def _run(task, tensors, rates) -> None:
    table, end = array("q"), 0
    for arrays in tensors:
        end += arrays[0].size
        table.append(end)
        table.extend(map(id, arrays))
    numbers = np.array(rates, np.float32)
    place, _ = table.buffer_info()
    threads.run(task, end, GRAIN, Parameters(place, numbers, len(rates)))


@jit
def _elements(table, k, start, stop):
    """Returns which elements of a parameter are among [start, stop) of all."""
    begin = table[k - 1, 0] if k else 0
    return max(start - begin, 0), min(stop, table[k, 0]) - begin


@jit
def by_momentum_sgd(p, g, v, lr, momentum):
    """Returns the new parameter and velocity."""
    v = v * momentum - lr * g
    return p + v, v


@jit
def by_adam(p, g, m, v, alpha, rate1, rate2, eps, eta, keep):
    """Returns the new parameter and moments."""
    m += rate1 * (g - m)
    v += rate2 * (g * g - v)
    return p * keep - eta * (alpha / (np.sqrt(v) + eps) * m), m, v


@jit
def by_sgd(p, g, v, lr, momentum, weight_decay, nesterov):
    """Returns the new parameter and velocity."""
    d = g + weight_decay * p if weight_decay else g
    v = v * momentum + d
    return p - lr * (d + momentum * v if nesterov else v), v


@Task
def _momentum_sgd(arguments, start, stop):
    a = unpack(arguments, Parameters)
    table = carray(integers(a.table), (a.n, 4))
    rates = carray(floats(a.rates), (a.n, 2))
    for k in range(a.n):
        first, last = _elements(table, k, start, stop)
        if first >= last:
            continue
        p = part(data_of(table[k, 1]), first, last)
        g = part(data_of(table[k, 2]), first, last)
        v = part(data_of(table[k, 3]), first, last)
        lr, momentum = rates[k, 0], rates[k, 1]
        for i in range(last - first):
            p[i], v[i] = by_momentum_sgd(p[i], g[i], v[i], lr, momentum)


@Task
def _adam(arguments, start, stop):
    a = unpack(arguments, Parameters)
    table = carray(integers(a.table), (a.n, 5))
    rates = carray(floats(a.rates), (a.n, 6))
    for k in range(a.n):
        first, last = _elements(table, k, start, stop)
        if first >= last:
            continue
        p = part(data_of(table[k, 1]), first, last)
        g = part(data_of(table[k, 2]), first, last)
        m = part(data_of(table[k, 3]), first, last)
        v = part(data_of(table[k, 4]), first, last)
        alpha, rate1, rate2 = rates[k, 0], rates[k, 1], rates[k, 2]
        eps, eta, keep = rates[k, 3], rates[k, 4], rates[k, 5]
        for i in range(last - first):
            p[i], m[i], v[i] = by_adam(
                p[i], g[i], m[i], v[i], alpha, rate1, rate2, eps, eta, keep
            )


@Task
def _sgd(arguments, start, stop):
    a = unpack(arguments, Parameters)
    table = carray(integers(a.table), (a.n, 4))
    rates = carray(floats(a.rates), (a.n, 4))
    for k in range(a.n):
        first, last = _elements(table, k, start, stop)
        if first >= last:
            continue
        p = part(data_of(table[k, 1]), first, last)
        g = part(data_of(table[k, 2]), first, last)
        v = part(data_of(table[k, 3]), first, last)
        lr, momentum = rates[k, 0], rates[k, 1]
        weight_decay, nesterov = rates[k, 2], rates[k, 3]
        for i in range(last - first):
            p[i], v[i] = by_sgd(p[i], g[i], v[i], lr, momentum, weight_decay, nesterov)
