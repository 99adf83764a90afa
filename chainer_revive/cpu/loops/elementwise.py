"""Functions of each element by itself, rounded as NumPy rounds them.

All arrays have one shape and the same memory layout, without gaps.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from chainer_revive.cpu.loops import pool
from chainer_revive.cpu.loops.intrinsics import floats, integers, jit
from chainer_revive.cpu.loops.pool import Task

_GRAIN = 1 << 15  # elements that are worth a thread


def relu(x: np.ndarray, y: np.ndarray) -> None:
    pool.run(_relu, x.size, _GRAIN, x, y)


def relu_backward(y: np.ndarray, gy: np.ndarray, gx: np.ndarray) -> None:
    pool.run(_relu_backward, y.size, _GRAIN, y, gy, gx)


def total(a: np.ndarray, b: np.ndarray, y: np.ndarray) -> None:
    """Adds a and b."""
    pool.run(_total, y.size, _GRAIN, a, b, y)


def mix(x: np.ndarray, weights: np.ndarray, perm: np.ndarray, y: np.ndarray) -> None:
    """Writes weights[0, n] * x[n] + weights[1, n] * x[perm[n]] to y[n].

    perm is of int64.
    """
    n, size = len(x), x.size // len(x)
    pool.run(_mix, n, -(-_GRAIN // size), x, weights, perm, y, size, n)


def momentum_sgd(p, g, v, lr: float, momentum: float) -> None:
    rates = np.array([lr, momentum], np.float32)
    pool.run(_momentum_sgd, p.size, _GRAIN, p, g, v, rates)


def adam(p, g, m, v, alpha, rate1, rate2, eps, eta, keep) -> None:
    rates = np.array([alpha, rate1, rate2, eps, eta, keep], np.float32)
    pool.run(_adam, p.size, _GRAIN, p, g, m, v, rates)


@jit
def _part(address, start, stop):
    """Views elements from ``start`` on; indexes below zero would cost the vectors."""
    return carray(floats(address + 4 * start), stop - start)


@Task
def _relu(arguments, start, stop):
    x = _part(arguments[0], start, stop)
    y = _part(arguments[1], start, stop)
    for i in range(stop - start):
        y[i] = np.float32(0) if x[i] <= 0 else x[i]  # NaN stays


@Task
def _relu_backward(arguments, start, stop):
    y = _part(arguments[0], start, stop)
    gy = _part(arguments[1], start, stop)
    gx = _part(arguments[2], start, stop)
    for i in range(stop - start):
        gx[i] = gy[i] * np.float32(y[i] > 0)


@Task
def _total(arguments, start, stop):
    a = _part(arguments[0], start, stop)
    b = _part(arguments[1], start, stop)
    y = _part(arguments[2], start, stop)
    for i in range(stop - start):
        y[i] = a[i] + b[i]


@Task
def _mix(arguments, start, stop):
    size = arguments[4]
    weights = carray(floats(arguments[1]), (2, arguments[5]))
    perm = carray(integers(arguments[2]), stop)
    for n in range(start, stop):
        own = carray(floats(arguments[0] + 4 * n * size), size)
        other = carray(floats(arguments[0] + 4 * perm[n] * size), size)
        y = carray(floats(arguments[3] + 4 * n * size), size)
        for i in range(size):
            y[i] = weights[0, n] * own[i] + weights[1, n] * other[i]


@Task
def _momentum_sgd(arguments, start, stop):
    p = _part(arguments[0], start, stop)
    g = _part(arguments[1], start, stop)
    v = _part(arguments[2], start, stop)
    rates = carray(floats(arguments[3]), 2)
    lr, momentum = rates[0], rates[1]
    for i in range(stop - start):
        v[i] = v[i] * momentum - lr * g[i]
        p[i] += v[i]


@Task
def _adam(arguments, start, stop):
    p = _part(arguments[0], start, stop)
    g = _part(arguments[1], start, stop)
    m = _part(arguments[2], start, stop)
    v = _part(arguments[3], start, stop)
    rates = carray(floats(arguments[4]), 6)
    alpha, rate1, rate2 = rates[0], rates[1], rates[2]
    eps, eta, keep = rates[3], rates[4], rates[5]
    for i in range(stop - start):
        m[i] += rate1 * (g[i] - m[i])
        v[i] += rate2 * (g[i] * g[i] - v[i])
        p[i] = p[i] * keep - eta * (alpha / (np.sqrt(v[i]) + eps) * m[i])
