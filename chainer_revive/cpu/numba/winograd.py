"""Convolution with kernels of 3x3 elements by fewer products, shared among threads.

The functions stand for those of :mod:`chainer_revive.cpu.numba.convolution`.
"""

from __future__ import annotations

import functools

import numpy as np

from chainer_revive.cpu.axis import Axis, meet
from chainer_revive.cpu.buffers import buffer
from chainer_revive.cpu.numba import threads
from chainer_revive.cpu.numba import winograd_loops as loops
from chainer_revive.cpu.numba.intrinsics import COLUMNS, LANES, ROWS
from chainer_revive.cpu.numba.products import padded
from chainer_revive.cpu.numba.transforms import POINTS, STEP, TAPS

_WIDTH = 16  # Channels are a multiple of this.
_CHANNELS = 40  # harmonic mean of both numbers of channels that pays for transforms
_GAIN = 1.4  # products saved that do
_FEW = 32  # tiles; gradients by a kernel are as exact from so many on
_BLOCK = 1 << 14  # transformed channels of tiles, at each point, that stay in the cache
_LEAST = 96  # tiles for which a large kernel is read from memory
_SHARE = 5  # channels for a tile whose products are added to all sums at once
_POINTS = 1 << 18  # elements of transforms that threads share
_WORK = 1 << 21  # multiplications that are worth a thread
_MOVES = 1 << 16  # copies that are


def covers(c: int, d: int, axes: tuple[Axis, Axis]) -> bool:
    """Tells whether a kernel has 3x3 elements that step from pixel to pixel."""
    for axis in axes:
        if axis.taps != TAPS or axis.stride != 1 or axis.dilation != 1:
            return False
    return c % _WIDTH == d % _WIDTH == 0


@functools.lru_cache(1024)
def pays(n: int, c: int, d: int, axes: tuple[Axis, Axis], outer: bool) -> bool:
    """Tells whether fewer products make n images faster.

    Args:
        outer (bool): Whether it is about :func:`correlate_outputs`.
    """
    if not covers(c, d, axes) or 2 * c * d < _CHANNELS * (c + d):
        return False
    tiles = _count_tiles(n, axes)
    if outer and tiles < max(_FEW, (c + d) // _FEW):
        return False
    products = n
    for axis in axes:
        products *= sum(stop - start for start, stop in _met(axis))
    return products >= _GAIN * POINTS * tiles


def _met(axis: Axis):
    """Yields the first and last step at which each tap meets the image."""
    for tap in range(axis.taps):
        steps, _ = meet(axis, tap)
        yield steps.start or 0, steps.stop


def _count_tiles(n: int, axes: tuple[Axis, Axis]) -> int:
    y_axis, x_axis = axes
    return n * -(-y_axis.out // STEP) * -(-x_axis.out // STEP)


def correlate(x, w, axes, b, y) -> None:
    """Writes to y; see :func:`chainer_revive.cpu.numba.convolution.correlate`."""
    d = w.shape[3]
    bias = padded(b, d)
    tiles = _count_tiles(len(x), axes)
    # What is smaller is transformed as a whole.
    convolve = _by_panels if tiles < d else _by_tiles
    convolve(x, w, bias, tiles, _tiles(x, y, axes))


def _by_tiles(x, w, bias, tiles, geometry) -> None:
    """Transforms the whole kernel first."""
    c, d = w.shape[2:]
    count = -(-d // COLUMNS)
    panels = _buffer("panels", count * c * COLUMNS)
    grain = -(-_MOVES // (POINTS * c * COLUMNS))
    arguments = loops.Kernel(w, panels, c, d, *_strides(w))
    threads.run(loops.pack, count, grain, arguments)
    # As many blocks as there are threads, or a multiple of that.
    n = threads.count()
    n *= -(-tiles * (c + d) // (n * max(_BLOCK, _LEAST * (c + d))))
    block = -(-tiles // (n * ROWS)) * ROWS
    least = -(-_WORK // (POINTS * c * d * ROWS)) * ROWS
    arguments = loops.Convolution(panels, bias, block)
    threads.run(loops.convolve, tiles, max(block, least), arguments, geometry)


def _by_panels(x, w, bias, tiles, geometry) -> None:
    """Transforms all images first."""
    c, d = w.shape[2:]
    v = _buffer("images", tiles * c)
    grain = -(-_MOVES // (POINTS * c))
    points = loops.Points(v, 0, tiles, 0)
    threads.run(loops.transform, tiles, grain, points, geometry)
    arguments = loops.Panels(v, tiles, bias, w, *_strides(w))
    grain = -(-_WORK // (POINTS * tiles * c * COLUMNS))
    threads.run(loops.convolve_panels, -(-d // COLUMNS), grain, arguments, geometry)


def correlate_outputs(x, y, axes) -> np.ndarray:
    """See :func:`chainer_revive.cpu.numba.convolution.correlate_outputs`."""
    c, d = x.shape[3], y.shape[3]
    tiles, panels = _count_tiles(len(x), axes), -(-d // COLUMNS)
    width = panels * COLUMNS
    most = max(_LEAST, (c + width) // _SHARE, _POINTS // (POINTS * (c + width)))
    size = -(-tiles // -(-tiles // most))
    v, z = _buffer("images", size * c), _buffer("outputs", size * width)
    sums = _buffer("panels", c * width)
    geometry = _tiles(x, y, axes)
    moves, rows = -(-_MOVES // (POINTS * (c + width))), -(-c // ROWS)
    for first in range(0, tiles, size):
        count = min(size, tiles - first)
        points = loops.Points(v, z, size, first)
        threads.run(loops.transform, count, moves, points, geometry)
        threads.run(
            loops.add_products,
            POINTS * rows,
            -(-_WORK // (count * ROWS * d)),
            loops.Sums(v, z, sums, c, d, panels, size, count, int(first > 0)),
        )
    result = np.empty((d, c, TAPS, TAPS), x.dtype)
    grain = -(-_MOVES // (TAPS * TAPS * c * LANES))
    arguments = loops.Gradient(sums, result, c, d, panels)
    threads.run(loops.finish, d // LANES, grain, arguments)
    return result


def _strides(w: np.ndarray) -> list[int]:
    return [stride // w.itemsize for stride in w.strides]


def _buffer(name: str, size: int) -> np.ndarray:
    return buffer(name, (POINTS, size + loops.SKEW), np.float32)


def _tiles(x: np.ndarray, y: np.ndarray, axes: tuple[Axis, Axis]) -> loops.Tiles:
    y_axis, x_axis = axes
    return loops.Tiles(
        *(x, y, *x.shape[1:], *y.shape[1:]),
        *[stride // y.itemsize for stride in y.strides[:3]],
        *(y_axis.pad, x_axis.pad, -(-y_axis.out // STEP), -(-x_axis.out // STEP)),
    )
