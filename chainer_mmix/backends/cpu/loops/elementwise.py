"""Functions of each element by itself, rounded as NumPy rounds them.

All arrays have one shape and the same memory layout, without gaps.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from chainer_mmix.backends.cpu.loops import pool
from chainer_mmix.backends.cpu.loops.intrinsics import floats, integers
from chainer_mmix.backends.cpu.loops.pool import Task

_GRAIN = 1 << 15  # elements that are worth a thread


def relu(x: np.ndarray, y: np.ndarray) -> None:
    pool.run(_relu, x.size, _GRAIN, x, y)


def relu_backward(y: np.ndarray, gy: np.ndarray, gx: np.ndarray) -> None:
    pool.run(_relu_backward, y.size, _GRAIN, y, gy, gx)


def total(a: np.ndarray, b: np.ndarray, y: np.ndarray) -> None:
    """Adds a and b."""
    pool.run(_total, y.size, _GRAIN, a, b, y)


def mix(x: np.ndarray, a, b, perm: np.ndarray, y: np.ndarray) -> None:
    """Writes a[n] * x[n] + b[n] * x[perm[n]] to y[n]; perm is of int64."""
    size = x.size // len(x)
    pool.run(_mix, len(x), -(-_GRAIN // size), x, a, b, perm, y, size)


def momentum_sgd(p, g, v, lr: float, momentum: float) -> None:
    rates = np.array([lr, momentum], np.float32)
    pool.run(_momentum_sgd, p.size, _GRAIN, p, g, v, rates)


def adam(p, g, m, v, alpha, rate1, rate2, eps, eta, keep) -> None:
    rates = np.array([alpha, rate1, rate2, eps, eta, keep], np.float32)
    pool.run(_adam, p.size, _GRAIN, p, g, m, v, rates)


@Task
def _relu(arguments, start, stop):
    x = carray(floats(arguments[0]), stop)
    y = carray(floats(arguments[1]), stop)
    for i in range(start, stop):
        y[i] = np.float32(0) if x[i] <= 0 else x[i]  # NaN stays


@Task
def _relu_backward(arguments, start, stop):
    y = carray(floats(arguments[0]), stop)
    gy = carray(floats(arguments[1]), stop)
    gx = carray(floats(arguments[2]), stop)
    for i in range(start, stop):
        gx[i] = gy[i] * np.float32(y[i] > 0)


@Task
def _total(arguments, start, stop):
    a = carray(floats(arguments[0]), stop)
    b = carray(floats(arguments[1]), stop)
    y = carray(floats(arguments[2]), stop)
    for i in range(start, stop):
        y[i] = a[i] + b[i]


@Task
def _mix(arguments, start, stop):
    size = arguments[5]
    a = carray(floats(arguments[1]), stop)
    b = carray(floats(arguments[2]), stop)
    perm = carray(integers(arguments[3]), stop)
    for n in range(start, stop):
        own = carray(floats(arguments[0] + 4 * n * size), size)
        other = carray(floats(arguments[0] + 4 * perm[n] * size), size)
        y = carray(floats(arguments[4] + 4 * n * size), size)
        for i in range(size):
            y[i] = a[n] * own[i] + b[n] * other[i]


@Task
def _momentum_sgd(arguments, start, stop):
    p = carray(floats(arguments[0]), stop)
    g = carray(floats(arguments[1]), stop)
    v = carray(floats(arguments[2]), stop)
    rates = carray(floats(arguments[3]), 2)
    lr, momentum = rates[0], rates[1]
    for i in range(start, stop):
        v[i] = v[i] * momentum - lr * g[i]
        p[i] += v[i]


@Task
def _adam(arguments, start, stop):
    p = carray(floats(arguments[0]), stop)
    g = carray(floats(arguments[1]), stop)
    m = carray(floats(arguments[2]), stop)
    v = carray(floats(arguments[3]), stop)
    rates = carray(floats(arguments[4]), 6)
    alpha, rate1, rate2 = rates[0], rates[1], rates[2]
    eps, eta, keep = rates[3], rates[4], rates[5]
    for i in range(start, stop):
        m[i] += rate1 * (g[i] - m[i])
        v[i] += rate2 * (g[i] * g[i] - v[i])
        p[i] = p[i] * keep - eta * (alpha / (np.sqrt(v[i]) + eps) * m[i])
