"""Batch normalisation of matrices (M, C): two passes over memory each way."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from chainer_revive.cpu import steps
from chainer_revive.cpu.buffers import constant
from chainer_revive.cpu.numba import threads
from chainer_revive.cpu.numba.elementwise import part
from chainer_revive.cpu.numba.intrinsics import (
    doubles,
    floats,
    jit,
    unpack,
    unpack_both,
)
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


class Gate(NamedTuple):
    """What lets gradients through first.

    Attributes:
        y: float32 (m, c), the output of ReLU.
        gated: float32 (m, c), written: gy where y is above 0; it may be gy.
    """

    y: int
    gated: int


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


class Moments(NamedTuple):
    """What follows from the sums of blocks.

    Attributes:
        sums: float64 (2, blocks, c), of elements and squares around the blocks' means.
        numbers: float32 (4,), see :func:`_numbers`.
        gamma, beta: float32 (c,).
        running_mean, running_var: float32 (c,), updated; or 0.
        results: float32 (5, c), written: variance, 1 / deviation, and values as in
            :class:`Apply`.
        m, c, rows: As in :class:`Blocks`.
    """

    sums: int
    numbers: int
    gamma: int
    beta: int
    running_mean: int
    running_var: int
    results: int
    m: int
    c: int
    rows: int


class Given(NamedTuple):
    """Statistics that are given.

    Attributes:
        mean, var, gamma, beta: float32 (c,).
        numbers: float32 (4,), see :func:`_numbers`.
        values: float32 (3, c), written, as in :class:`Apply`.
        c: The number of channels.
    """

    mean: int
    var: int
    gamma: int
    beta: int
    numbers: int
    values: int
    c: int


class Slopes(NamedTuple):
    """What follows from the sums of blocks on the way back.

    Attributes:
        sums: float64 (2, blocks, c), of gy * (x - mean) and gy.
        gamma, mean, inv_std: float32 (c,).
        values: float32 (4, c), written, as in :class:`Gradient`.
        ggamma, gbeta: float32 (c,), written.
        m, c, blocks: The numbers of rows, of channels and of blocks.
    """

    sums: int
    gamma: int
    mean: int
    inv_std: int
    values: int
    ggamma: int
    gbeta: int
    m: int
    c: int
    blocks: int


def forward(x, gamma, beta, eps, y) -> tuple[np.ndarray, ...]:
    """Normalises x into y; returns mean, variance and 1 / deviation."""
    *moments, values = statistics(x, gamma, beta, eps)
    _normalise(x, values, y)
    return tuple(moments)


def statistics(
    x, gamma, beta, eps, running=(0, 0), decay: float = 0.0
) -> tuple[np.ndarray, ...]:
    """Computes what normalisation takes.

    Args:
        running: Contiguous float32 arrays, averages of mean and variance to update.
        decay: Of these.

    Returns:
        tuple: Mean, variance, 1 / deviation, and values as :func:`finish` takes them.
    """
    m, c = x.shape
    sums, rows = _of_blocks(_deviations, x)
    blocks = sums.shape[1]
    results = np.empty((5, c), np.float32)
    numbers = _numbers(m, float(eps), decay)
    gamma, beta = steps.contiguous(gamma), steps.contiguous(beta)
    arguments = Moments(sums, numbers, gamma, beta, *running, results, m, c, rows)
    threads.run(_moments, c, -(-_GRAIN // blocks), arguments)
    var, inv_std, mean, _, _ = results
    return mean, var, inv_std, results[2:]


@functools.lru_cache(256)
def _numbers(m: int, eps: float, decay: float) -> np.ndarray:
    """Returns eps, decay, and what new means and variances are multiplied by."""
    adjust = m / max(m - 1.0, 1.0)  # unbiased estimation
    numbers = [eps, decay, 1 - decay, (1 - decay) * adjust]
    return constant(np.array(numbers, np.float32))


def given(mean, var, gamma, beta, eps) -> np.ndarray:
    """Returns values as :func:`finish` takes them, rounded as Chainer rounds them.

    Args:
        mean, var, gamma, beta: Contiguous float32 arrays (C,).
        eps (float): What is added to the variance.
    """
    c = len(gamma)
    values = np.empty((3, c), np.float32)
    arguments = Given(mean, var, gamma, beta, _numbers(1, eps, 0.0), values, c)
    threads.run(_given, c, _GRAIN, arguments)
    return values


def apply(x, mean, scale, beta, y) -> None:
    """Writes (x - mean) * scale + beta to y."""
    _normalise(x, np.array([mean, scale, beta], x.dtype), y)


def _normalise(x, values, y) -> None:
    m, c = x.shape
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


def backward(
    x, gy, gamma, mean, inv_std, gx, y=None, gated=None
) -> tuple[np.ndarray, np.ndarray]:
    """Writes the gradient by x; returns those by gamma and beta.

    Args:
        y (array): The output of ReLU, if gy is the gradient by that.
        gated (array): Where the gradient by the input of ReLU goes. It may be gy or gx,
            or both.
    """
    m, c = x.shape
    if y is None:
        sums, _ = _of_blocks(_products, x, gy, mean)
    else:
        sums, _ = _of_blocks(_gated_products, x, gy, mean, Gate(y, gated))
        gy = gated
    blocks = sums.shape[1]
    values = np.empty((4, c), np.float32)
    ggamma, gbeta = np.empty(c, np.float32), np.empty(c, np.float32)
    given = [steps.contiguous(a, np.float32) for a in (gamma, mean, inv_std)]
    arguments = Slopes(sums, *given, values, ggamma, gbeta, m, c, blocks)
    threads.run(_slopes, c, -(-_GRAIN // blocks), arguments)
    threads.run(_gradient, m, -(-_GRAIN // c), Gradient(x, gy, gx, values, c))
    return ggamma, gbeta


def channel_sums(x) -> np.ndarray:
    """Returns the sum of each column."""
    (sums, _), _ = _of_blocks(_sums, x)
    total = np.empty(x.shape[1], x.dtype)
    steps.do(_add_up, sums, total)
    return total


def _add_up(sums, total) -> None:
    total[...] = sums.sum(0)


def _of_blocks(task, x, gy=0, mean=0, gate=()):
    """Returns two sums of each block of rows, and how many rows a block has."""
    m, c = x.shape
    rows = max(1, min(_ROWS, _BLOCK // c))
    blocks = -(-m // rows)
    sums = np.empty((2, blocks, c))
    arguments = Blocks(x, gy, mean, sums, m, c, rows)
    threads.run(task, blocks, -(-_GRAIN // (rows * c)), arguments, gate)
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


@jit
def _over_blocks(sums, start, stop):
    """Adds up two sums of blocks, for channels [start, stop)."""
    first, second = sums[0, 0, start:stop].copy(), sums[1, 0, start:stop].copy()
    for block in range(1, sums.shape[1]):
        for q in range(stop - start):
            first[q] += sums[0, block, start + q]
            second[q] += sums[1, block, start + q]
    return first, second


@Task
def _moments(arguments, start, stop):
    """What :func:`statistics` returns, rounded as NumPy rounds it."""
    a = unpack(arguments, Moments)
    m, c, rows = a.m, a.c, a.rows
    blocks, n = -(-m // rows), stop - start
    sums = carray(doubles(a.sums), (2, blocks, c))
    numbers = carray(floats(a.numbers), 4)
    results = carray(floats(a.results), (5, c))
    gamma, beta = part(a.gamma, start, stop), part(a.beta, start, stop)
    exact, squares = _over_blocks(sums, start, stop)
    for q in range(n):
        exact[q] /= m
    # The sum of squares around the blocks' means, and that of these around the mean.
    between = np.zeros(n)
    for block in range(blocks):
        count = min(rows, m - block * rows)
        sums_here = sums[0, block, start:stop]
        for q in range(n):
            d = sums_here[q] / count - exact[q]
            between[q] += count * (d * d)
    var, inv_std = results[0, start:stop], results[1, start:stop]
    mean, scale = results[2, start:stop], results[3, start:stop]
    results[4, start:stop] = beta
    for q in range(n):
        mean[q] = exact[q]
        var[q] = (squares[q] + between[q]) / m
        inv_std[q] = np.float32(1) / np.sqrt(var[q] + numbers[0])
        scale[q] = inv_std[q] * gamma[q]
    if a.running_mean:
        running_mean = part(a.running_mean, start, stop)
        running_var = part(a.running_var, start, stop)
        for q in range(n):
            new = numbers[2] * mean[q]
            running_mean[q] = running_mean[q] * numbers[1] + new
            new = numbers[3] * var[q]
            running_var[q] = running_var[q] * numbers[1] + new


@Task
def _given(arguments, start, stop):
    """What :func:`given` returns."""
    a = unpack(arguments, Given)
    numbers = carray(floats(a.numbers), 4)
    values = carray(floats(a.values), (3, a.c))
    mean, var = part(a.mean, start, stop), part(a.var, start, stop)
    gamma, beta = part(a.gamma, start, stop), part(a.beta, start, stop)
    shift, scale = values[0, start:stop], values[1, start:stop]
    values[2, start:stop] = beta
    for q in range(stop - start):
        shift[q] = mean[q]
        scale[q] = np.sqrt(np.float32(1) / (var[q] + numbers[0])) * gamma[q]


@Task
def _slopes(arguments, start, stop):
    """What the gradient by x takes, and those by gamma and beta."""
    a = unpack(arguments, Slopes)
    m, c, n = a.m, a.c, stop - start
    sums = carray(doubles(a.sums), (2, a.blocks, c))
    values = carray(floats(a.values), (4, c))
    gamma, mean = part(a.gamma, start, stop), part(a.mean, start, stop)
    inv_std = part(a.inv_std, start, stop)
    ggamma, gbeta = part(a.ggamma, start, stop), part(a.gbeta, start, stop)
    products, total = _over_blocks(sums, start, stop)
    values[0, start:stop] = mean
    scale, slope = values[1, start:stop], values[2, start:stop]
    shift = values[3, start:stop]
    for q in range(n):
        product = products[q] * inv_std[q]
        scale[q] = gamma[q] * inv_std[q]
        slope[q] = -scale[q] * inv_std[q] * product / m
        shift[q] = -scale[q] * total[q] / m
        ggamma[q] = product
        gbeta[q] = total[q]


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
def _gated_products(arguments, start, stop):
    """The same sums; gy is set to 0 where the output of ReLU is."""
    a, gate = unpack_both(arguments, Blocks, Gate)
    m, c, rows = a.m, a.c, a.rows
    x = carray(floats(a.x), (m, c))
    y = carray(floats(gate.y), (m, c))
    gy = carray(floats(a.gy), (m, c))
    gated = carray(floats(gate.gated), (m, c))
    mean = carray(floats(a.mean), c)
    sums = carray(doubles(a.sums), (2, -(-m // rows), c))
    product, part = np.empty(c, np.float32), np.empty(c, np.float32)
    row = np.empty(c, np.float32)  # Arrays that may be one would cost the vectors.
    for block in range(start, stop):
        product[:] = 0
        part[:] = 0
        for i in range(block * rows, min(m, (block + 1) * rows)):
            for q in range(c):
                row[q] = gy[i, q] * np.float32(y[i, q] > 0)
            for q in range(c):
                gated[i, q] = row[q]
                product[q] += row[q] * (x[i, q] - mean[q])
                part[q] += row[q]
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
    row = np.empty(c, np.float32)
    for i in range(start, stop):
        for q in range(c):
            d = x[i, q] - values[0, q]
            row[q] = values[1, q] * gy[i, q] + (values[2, q] * d + values[3, q])
        for q in range(c):
            gx[i, q] = row[q]
