"""Batch normalisation of matrices (M, C): two passes over memory each way."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from chainer_revive.cpu.numba import threads
from chainer_revive.cpu.numba.intrinsics import doubles, floats, unpack
from chainer_revive.cpu.numba.later import carray
from chainer_revive.cpu.numba.threads import Task

_GRAIN = 1 << 15  # elements that are worth a thread
_BLOCK = 1 << 14  # elements that stay in the cache
_ROWS = 128  # added up in float32 before they go into a sum in float64

# Sums may be taken in any order, as the processor's vectors do.
_summing = functools.partial(Task, fastmath={"contract", "nsz", "reassoc"})


class Blocks(NamedTuple):
    """Sums (2, blocks, c) over blocks of rows, each in float64.

    Attributes:
        x: float32 (m, c).
        gy: float32 (m, c), or 0 where it is not needed.
        mean: float32 (c,), likewise.
        sums: float64 (2, blocks, c), written.
        m, c: The shape.
        rows: How many a block has; the last one may have fewer.
    """

    x: int
    gy: int
    mean: int
    sums: int
    m: int
    c: int
    rows: int


class Apply(NamedTuple):
    """y = (x - values[0]) * values[1] + values[2], with values (3, c)."""

    x: int
    y: int
    values: int
    c: int


class Finish(NamedTuple):
    """Arrays (m, c), y written, which may be x; values as in :class:`Apply`.

    Attributes:
        values: 0 to leave x as it is.
        other: What to add, or 0.
        other_values: 0 to leave that as it is.
        relu: 1 for ReLU at the end, or 0.
    """

    x: int
    values: int
    other: int
    other_values: int
    relu: int
    y: int
    c: int


class Gradient(NamedTuple):
    """Arrays (m, c), gx written; values (4, c) are mean, scale, slope and shift."""

    x: int
    gy: int
    gx: int
    values: int
    c: int


def forward(x, gamma, beta, eps, y) -> tuple[np.ndarray, ...]:
    """Normalises x into y; returns mean, variance and 1 / deviation."""
    mean, var, inv_std = statistics(x, eps)
    apply(x, mean, inv_std * gamma, beta, y)
    return mean, var, inv_std


def statistics(x, eps) -> tuple[np.ndarray, ...]:
    """Returns mean, variance and 1 / deviation."""
    m = len(x)
    (sums, squares), rows = _of_blocks(_deviations, x)
    exact = sums.sum(0) / m
    counts = np.full((len(sums), 1), rows)
    counts[-1] = m - (len(sums) - 1) * rows
    # The sum of squares around the blocks' means, and that of these around the mean.
    squares = squares.sum(0) + (counts * (sums / counts - exact) ** 2).sum(0)
    mean, var = exact.astype(x.dtype), (squares / m).astype(x.dtype)
    return mean, var, np.reciprocal(np.sqrt(var + eps, dtype=x.dtype))


def apply(x, mean, scale, beta, y) -> None:
    """Writes (x - mean) * scale + beta to y."""
    m, c = x.shape
    values = np.array([mean, scale, beta], x.dtype)
    threads.run(_apply, m, -(-_GRAIN // c), Apply(x, y, values, c))


def finish(x, values, other, other_values, relu: bool, y) -> None:
    """Writes x, normalised, plus other, normalised, and perhaps ReLU of it, to y.

    Args:
        values, other_values: (3, C), as :func:`apply` takes them; ``None`` not to
            normalise.
        other (array): ``None`` for nothing to add.
    """
    m, c = x.shape
    arrays = (0 if a is None else a for a in (x, values, other, other_values))
    threads.run(_finish, m, -(-_GRAIN // c), Finish(*arrays, int(relu), y, c))


def backward(x, gy, gamma, mean, inv_std, gx) -> tuple[np.ndarray, np.ndarray]:
    """Writes the gradient by x; returns those by gamma and beta."""
    m, c = x.shape
    (products, sums), _ = _of_blocks(_products, x, gy, mean)
    ggamma, gbeta = products.sum(0) * inv_std, sums.sum(0)
    scale = gamma * inv_std
    slope, shift = -scale * inv_std * ggamma / m, -scale * gbeta / m
    values = np.array([mean, scale, slope, shift], x.dtype)
    threads.run(_gradient, m, -(-_GRAIN // c), Gradient(x, gy, gx, values, c))
    return ggamma.astype(x.dtype), gbeta.astype(x.dtype)


def channel_sums(x) -> np.ndarray:
    """Returns the sum of each column."""
    (sums, _), _ = _of_blocks(_sums, x)
    return sums.sum(0).astype(x.dtype)


def _of_blocks(task, x, gy=0, mean=0):
    """Returns two sums of each block of rows, and how many rows a block has."""
    m, c = x.shape
    rows = max(1, min(_ROWS, _BLOCK // c))
    blocks = -(-m // rows)
    sums = np.empty((2, blocks, c))
    arguments = Blocks(x, gy, mean, sums, m, c, rows)
    threads.run(task, blocks, -(-_GRAIN // (rows * c)), arguments)
    return sums, rows


@_summing
def _sums(arguments, start, stop):
    """Sums of each block."""
    a = unpack(arguments, Blocks)
    m, c, rows = a.m, a.c, a.rows
    x = carray(floats(a.x), (m, c))
    sums = carray(doubles(a.sums), (2, -(-m // rows), c))
    part = np.empty(c, np.float32)
    for block in range(start, stop):
        part[:] = 0
        for i in range(block * rows, min(m, (block + 1) * rows)):
            for q in range(c):
                part[q] += x[i, q]
        for q in range(c):
            sums[0, block, q] = part[q]


@_summing
def _deviations(arguments, start, stop):
    """Sums, and squares around the mean, of each block."""
    a = unpack(arguments, Blocks)
    m, c, rows = a.m, a.c, a.rows
    x = carray(floats(a.x), (m, c))
    sums = carray(doubles(a.sums), (2, -(-m // rows), c))
    part, mean = np.empty(c, np.float32), np.empty(c, np.float32)
    for block in range(start, stop):
        first, last = block * rows, min(m, (block + 1) * rows)
        part[:] = 0
        for i in range(first, last):
            for q in range(c):
                part[q] += x[i, q]
        for q in range(c):
            sums[0, block, q] = part[q]
            mean[q] = part[q] / (last - first)
            part[q] = 0
        for i in range(first, last):
            for q in range(c):
                d = x[i, q] - mean[q]
                part[q] += d * d
        for q in range(c):
            sums[1, block, q] = part[q]


@_summing
def _apply(arguments, start, stop):
    a = unpack(arguments, Apply)
    c = a.c
    x = carray(floats(a.x), (stop, c))
    y = carray(floats(a.y), (stop, c))
    values = carray(floats(a.values), (3, c))
    for i in range(start, stop):
        for q in range(c):
            y[i, q] = (x[i, q] - values[0, q]) * values[1, q] + values[2, q]


@_summing
def _finish(arguments, start, stop):
    a = unpack(arguments, Finish)
    c = a.c
    x = carray(floats(a.x), (stop, c))
    other = carray(floats(a.other), (stop, c))
    y = carray(floats(a.y), (stop, c))
    values = carray(floats(a.values), (3, c))
    other_values = carray(floats(a.other_values), (3, c))
    row = np.empty(c, np.float32)
    for i in range(start, stop):
        if a.values:
            for q in range(c):
                row[q] = (x[i, q] - values[0, q]) * values[1, q] + values[2, q]
        else:
            for q in range(c):
                row[q] = x[i, q]
        if a.other_values:
            for q in range(c):
                d = other[i, q] - other_values[0, q]
                row[q] += d * other_values[1, q] + other_values[2, q]
        elif a.other:
            for q in range(c):
                row[q] += other[i, q]
        if a.relu:
            for q in range(c):
                y[i, q] = np.float32(0) if row[q] <= 0 else row[q]  # NaN stays
        else:
            for q in range(c):
                y[i, q] = row[q]


@_summing
def _products(arguments, start, stop):
    """Sums of gy * (x - mean), and of gy, of each block."""
    a = unpack(arguments, Blocks)
    m, c, rows = a.m, a.c, a.rows
    x = carray(floats(a.x), (m, c))
    gy = carray(floats(a.gy), (m, c))
    mean = carray(floats(a.mean), c)
    sums = carray(doubles(a.sums), (2, -(-m // rows), c))
    product, part = np.empty(c, np.float32), np.empty(c, np.float32)
    for block in range(start, stop):
        product[:] = 0
        part[:] = 0
        for i in range(block * rows, min(m, (block + 1) * rows)):
            for q in range(c):
                product[q] += gy[i, q] * (x[i, q] - mean[q])
                part[q] += gy[i, q]
        for q in range(c):
            sums[0, block, q] = product[q]
            sums[1, block, q] = part[q]


@_summing
def _gradient(arguments, start, stop):
    a = unpack(arguments, Gradient)
    c = a.c
    x = carray(floats(a.x), (stop, c))
    gy = carray(floats(a.gy), (stop, c))
    gx = carray(floats(a.gx), (stop, c))
    values = carray(floats(a.values), (4, c))
    for i in range(start, stop):
        for q in range(c):
            d = x[i, q] - values[0, q]
            gx[i, q] = values[1, q] * gy[i, q] + (values[2, q] * d + values[3, q])
