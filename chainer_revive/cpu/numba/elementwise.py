"""Functions of each element by itself, rounded as NumPy rounds them.

All arrays have one shape and the same memory layout, without gaps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from chainer_revive.cpu.numba import threads
from chainer_revive.cpu.numba.intrinsics import floats, jit, unpack
from chainer_revive.cpu.numba.later import carray
from chainer_revive.cpu.numba.threads import Task

GRAIN = 1 << 15  # elements that are worth a thread


class Relu(NamedTuple):
    x: int
    y: int


class ReluGradient(NamedTuple):
    y: int
    gy: int
    gx: int


class Total(NamedTuple):
    a: int
    b: int
    y: int


def relu(x: np.ndarray, y: np.ndarray) -> None:
    threads.run(_relu, x.size, GRAIN, Relu(x, y))


def relu_backward(y: np.ndarray, gy: np.ndarray, gx: np.ndarray) -> None:
    threads.run(_relu_backward, y.size, GRAIN, ReluGradient(y, gy, gx))


def total(a: np.ndarray, b: np.ndarray, y: np.ndarray) -> None:
    """Adds a and b."""
    threads.run(_total, y.size, GRAIN, Total(a, b, y))


@jit
def part(address, start, stop):
    """Views elements from ``start`` on; indexes below zero would cost the vectors."""
    return carray(floats(address + 4 * start), stop - start)


@Task
def _relu(arguments, start, stop):
    f = unpack(arguments, Relu)
    x = part(f.x, start, stop)
    y = part(f.y, start, stop)
    for i in range(stop - start):
        y[i] = np.float32(0) if x[i] <= 0 else x[i]  # NaN stays


@Task
def _relu_backward(arguments, start, stop):
    f = unpack(arguments, ReluGradient)
    y = part(f.y, start, stop)
    gy = part(f.gy, start, stop)
    gx = part(f.gx, start, stop)
    for i in range(stop - start):
        gx[i] = gy[i] * np.float32(y[i] > 0)


@Task
def _total(arguments, start, stop):
    f = unpack(arguments, Total)
    a = part(f.a, start, stop)
    b = part(f.b, start, stop)
    y = part(f.y, start, stop)
    for i in range(stop - start):
        y[i] = a[i] + b[i]
