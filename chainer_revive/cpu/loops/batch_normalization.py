"""Batch normalisation of matrices (M, C): two passes over memory each way."""

from __future__ import annotations

import functools

import numpy as np
from numba import carray

from chainer_revive.cpu.loops import pool
from chainer_revive.cpu.loops.intrinsics import doubles, floats
from chainer_revive.cpu.loops.pool import Task

_GRAIN = 1 << 15  # elements that are worth a thread
_BLOCK = 1 << 14  # elements that stay in the cache
_ROWS = 128  # added up in float32 before they go into a sum in float64

# Sums may be taken in any order, as the processor's vectors do.
_summing = functools.partial(Task, fastmath={"contract", "nsz", "reassoc"})


def bn_forward(x, gamma, beta, eps, y) -> tuple[np.ndarray, ...]:
    """Normalises x into y; returns mean, variance and 1 / deviation."""
    m = len(x)
    (sums, squares), rows = _of_blocks(_deviations, x)
    exact = sums.sum(0) / m
    counts = np.full((len(sums), 1), rows)
    counts[-1] = m - (len(sums) - 1) * rows
    # The sum of squares around the blocks' means, and that of these around the mean.
    squares = squares.sum(0) + (counts * (sums / counts - exact) ** 2).sum(0)
    mean, var = exact.astype(x.dtype), (squares / m).astype(x.dtype)
    inv_std = np.reciprocal(np.sqrt(var + eps, dtype=x.dtype))
    bn_apply(x, mean, inv_std * gamma, beta, y)
    return mean, var, inv_std


def bn_apply(x, mean, scale, beta, y) -> None:
    """Writes (x - mean) * scale + beta to y."""
    m, c = x.shape
    values = np.array([mean, scale, beta], x.dtype)
    pool.run(_apply, m, -(-_GRAIN // c), x, y, values, c)


def bn_backward(x, gy, gamma, mean, inv_std, gx) -> tuple[np.ndarray, np.ndarray]:
    """Writes the gradient by x; returns those by gamma and beta."""
    m, c = x.shape
    (products, sums), _ = _of_blocks(_products, x, gy, mean)
    ggamma, gbeta = products.sum(0) * inv_std, sums.sum(0)
    scale = gamma * inv_std
    slope, shift = -scale * inv_std * ggamma / m, -scale * gbeta / m
    values = np.array([mean, scale, slope, shift], x.dtype)
    pool.run(_gradient, m, -(-_GRAIN // c), x, gy, gx, values, c)
    return ggamma.astype(x.dtype), gbeta.astype(x.dtype)


def channel_sums(x) -> np.ndarray:
    """Returns the sum of each column."""
    (sums, _), _ = _of_blocks(_sums, x)
    return sums.sum(0).astype(x.dtype)


def _of_blocks(task, x, *others):
    """Returns two sums of each block of rows, and how many rows a block has."""
    m, c = x.shape
    rows = max(1, min(_ROWS, _BLOCK // c))
    blocks = -(-m // rows)
    sums = np.empty((2, blocks, c))
    pool.run(task, blocks, -(-_GRAIN // (rows * c)), x, sums, m, c, rows, *others)
    return sums, rows


@_summing
def _sums(arguments, start, stop):
    """Sums of each block."""
    m, c, rows = arguments[2], arguments[3], arguments[4]
    x = carray(floats(arguments[0]), (m, c))
    sums = carray(doubles(arguments[1]), (2, -(-m // rows), c))
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
    m, c, rows = arguments[2], arguments[3], arguments[4]
    x = carray(floats(arguments[0]), (m, c))
    sums = carray(doubles(arguments[1]), (2, -(-m // rows), c))
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
    c = arguments[3]
    x = carray(floats(arguments[0]), (stop, c))
    y = carray(floats(arguments[1]), (stop, c))
    values = carray(floats(arguments[2]), (3, c))
    for i in range(start, stop):
        for q in range(c):
            y[i, q] = (x[i, q] - values[0, q]) * values[1, q] + values[2, q]


@_summing
def _products(arguments, start, stop):
    """Sums of gy * (x - mean), and of gy, of each block."""
    m, c, rows = arguments[2], arguments[3], arguments[4]
    x = carray(floats(arguments[0]), (m, c))
    gy = carray(floats(arguments[5]), (m, c))
    mean = carray(floats(arguments[6]), c)
    sums = carray(doubles(arguments[1]), (2, -(-m // rows), c))
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
    c = arguments[4]
    x = carray(floats(arguments[0]), (stop, c))
    gy = carray(floats(arguments[1]), (stop, c))
    gx = carray(floats(arguments[2]), (stop, c))
    values = carray(floats(arguments[3]), (4, c))
    for i in range(start, stop):
        for q in range(c):
            d = x[i, q] - values[0, q]
            gx[i, q] = values[1, q] * gy[i, q] + (values[2, q] * d + values[3, q])
