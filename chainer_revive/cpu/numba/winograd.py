"""Convolution with kernels of 3x3 elements by fewer products, shared among threads.

The functions stand for those of :mod:`chainer_revive.cpu.numba.convolution`.
"""

from __future__ import annotations

import functools

import numpy as np

from chainer_revive.cpu import steps
from chainer_revive.cpu.axis import Axis, meet
from chainer_revive.cpu.buffers import buffer
from chainer_revive.cpu.numba import threads
from chainer_revive.cpu.numba import winograd_loops as loops
from chainer_revive.cpu.numba.intrinsics import COLUMNS, ROWS
from chainer_revive.cpu.numba.products import padded
from chainer_revive.cpu.numba.transposes import TAPS

_STEPS = {3: 2, 4: 2, 6: 4}  # from tile to tile, by the points along H and W
_WIDTH = 16  # Channels are a multiple of this.
_CHANNELS = 40  # harmonic mean of both numbers of channels that pays for transforms
_GAIN = 1.4  # products saved that do
_GAIN_FOUR = 4 / 3  # products saved by larger tiles that do
# Channels over which larger tiles sum with at most twice the error of direct sums, if
# there are several in each image.
_EXACT = range(64, 1025)
_FEW = 32  # tiles; gradients by a kernel are as exact from so many on
_BLOCK = 1 << 18  # transformed channels of tiles, at all points, that stay in the cache
_LEAST = 96  # tiles for which a large kernel is read from memory
_TILES = 512  # whose products are added to all sums at once
_SUMS = 1 << 17  # sums that stay in the cache of one thread
_LONG = 2048  # tiles for which each part of them has its own sums
_PARTS = 8  # whatever the number of threads is, as it changes the last bits
_BLOCK_OUTER = 1 << 17  # transformed channels that stay in the cache beside these sums
_WORK = 1 << 21  # multiplications that are worth a thread
_MOVES = 1 << 16  # copies that are


def covers(c: int, d: int, axes: tuple[Axis, Axis]) -> bool:
    """Tells whether a kernel has 3x3 elements that step from pixel to pixel."""
    for axis in axes:
        if axis.taps != TAPS or axis.stride != 1 or axis.dilation != 1:
            return False
    return c % _WIDTH == d % _WIDTH == 0


@functools.lru_cache(1024)
def side(
    n: int, c: int, d: int, axes: tuple[Axis, Axis], outer: bool, wanted: int
) -> int:
    """Returns the points along H and W that make n images fastest; 0 for direct sums.

    There are 3 for an image of 2x2 pixels and the zeros around it, 4 for a tile of 2x2
    results, and 6 for one of 4x4.

    Args:
        outer (bool): Whether it is about :func:`correlate_outputs`.
        wanted (int): ``config.winograd``.
    """
    if not wanted or not covers(c, d, axes) or 2 * c * d < _CHANNELS * (c + d):
        return 0
    products = n
    for axis in axes:
        products *= sum(stop - start for start, stop in _met(axis))
    tiles = _count_tiles(n, axes, 4)
    if outer and tiles < max(_FEW, (c + d) // _FEW):
        return 0
    if all([axis.size == axis.out == 2 and axis.pad == 1 for axis in axes]):
        return 3
    if products < _GAIN * 4**2 * tiles:
        return 0
    fewer = _count_tiles(n, axes, 6)
    saves = 4**2 * tiles >= _GAIN_FOUR * 6**2 * fewer
    exact = not outer and _EXACT.start <= c < _EXACT.stop and fewer > n
    larger = wanted == 4 or (wanted != 2 and exact)
    return 6 if larger and saves else 4


def _met(axis: Axis):
    """Yields the first and last step at which each tap meets the image."""
    for tap in range(axis.taps):
        steps, _ = meet(axis, tap)
        yield steps.start or 0, steps.stop


def _count_tiles(n: int, axes: tuple[Axis, Axis], side: int) -> int:
    step = _STEPS[side]
    y_axis, x_axis = axes
    return n * -(-y_axis.out // step) * -(-x_axis.out // step)


def correlate(x, w, axes, b, y, side) -> None:
    """Writes to y; see :func:`chainer_revive.cpu.numba.convolution.correlate`.

    Args:
        side (int): As :func:`side` returns it.
    """
    d = w.shape[3]
    bias = padded(b, d)
    tiles = _count_tiles(len(x), axes, side)
    turn = -1 if w.strides[1] < 0 else 1
    if w.strides[:2] != (turn * TAPS * w.itemsize, turn * w.itemsize):
        w = steps.contiguous(w.transpose(3, 2, 0, 1)).transpose(2, 3, 1, 0)
        turn = 1
    strides = turn, *[stride // w.itemsize for stride in w.strides[2:]]
    # What is smaller is transformed as a whole.
    convolve = _by_panels if tiles < d else _by_tiles
    convolve(w, strides, bias, tiles, _tiles(x, y, axes, side))


def _by_tiles(w, strides, bias, tiles, geometry) -> None:
    """Transforms the whole kernel first."""
    c, d = w.shape[2:]
    points = geometry.side**2
    shape = _shape(geometry.side, -(-d // COLUMNS) * c * COLUMNS)
    panels = steps.kept(w, shape, np.float32)
    if panels is None:
        panels = buffer("panels", shape, np.float32)
    arguments = loops.Kernel(w, panels, geometry.side, c, d, *strides)
    grain = -(-_MOVES // (points * c * COLUMNS))
    threads.run(loops.pack, -(-d // COLUMNS), grain, arguments)
    # As many blocks as there are threads, or a multiple of that.
    n = threads.count()
    n *= -(-tiles * (c + d) // (n * max(_BLOCK // points, _LEAST * (c + d))))
    block = -(-tiles // (n * ROWS)) * ROWS
    least = -(-_WORK // (points * c * d * ROWS)) * ROWS
    arguments = loops.Convolution(panels, bias, block)
    threads.run(loops.convolve, tiles, max(block, least), arguments, geometry)


def _by_panels(w, strides, bias, tiles, geometry) -> None:
    """Transforms all images first."""
    c, d = w.shape[2:]
    points = geometry.side**2
    v = _buffer("images", geometry.side, tiles * c)
    arguments = loops.Points(v, 0, tiles, 0)
    threads.run(loops.transform, tiles, -(-_MOVES // (points * c)), arguments, geometry)
    arguments = loops.Panels(v, tiles, bias, w, *strides)
    grain = -(-_WORK // (points * tiles * c * COLUMNS))
    threads.run(loops.convolve_panels, -(-d // COLUMNS), grain, arguments, geometry)


def correlate_outputs(x, y, axes, side) -> np.ndarray:
    """See :func:`chainer_revive.cpu.numba.convolution.correlate_outputs`."""
    c, d = x.shape[3], y.shape[3]
    tiles, panels = _count_tiles(len(x), axes, side), -(-d // COLUMNS)
    geometry = _tiles(x, y, axes, side)
    size = side**2 * c * panels * COLUMNS
    if size <= _SUMS and tiles >= _LONG:
        sums, parts = _sum_parts(tiles, geometry)
    else:
        sums, parts = _sum_in_turn(tiles, geometry), 1
    result = np.empty((d, c, TAPS, TAPS), x.dtype)
    grain = -(-_MOVES // (TAPS * TAPS * c * COLUMNS))
    arguments = loops.Gradient(side, sums, parts, result, c, d, panels)
    threads.run(loops.finish, panels, grain, arguments)
    return result


def _sum_in_turn(tiles, geometry) -> np.ndarray:
    """Sums products, after all threads have transformed many tiles."""
    side, c, d = geometry.side, geometry.c, geometry.d
    panels, points = -(-d // COLUMNS), side**2
    width = panels * COLUMNS
    size = -(-tiles // -(-tiles // _TILES))
    v, z = _buffer("images", side, size * c), _buffer("outputs", side, size * width)
    sums = _buffer("panels", side, c * width)
    moves, rows = -(-_MOVES // (points * (c + width))), -(-c // ROWS)
    for first in range(0, tiles, size):
        count = min(size, tiles - first)
        arguments = loops.Points(v, z, size, first)
        threads.run(loops.transform, count, moves, arguments, geometry)
        threads.run(
            loops.add_products,
            points * rows,
            -(-_WORK // (count * ROWS * d)),
            loops.Sums(v, z, sums, c, d, panels, size, count, int(first > 0)),
        )
    return sums


def _sum_parts(tiles, geometry) -> tuple[np.ndarray, int]:
    """Sums products of parts of the tiles, each by one thread, whose cache has all."""
    side, c, d = geometry.side, geometry.c, geometry.d
    width = -(-d // COLUMNS) * COLUMNS
    block = max(_FEW, _BLOCK_OUTER // (side**2 * (c + width)) // _FEW * _FEW)
    size = -(-tiles // _PARTS)
    parts = -(-tiles // size)
    sums = _buffer("panels", side, c * width, parts)
    arguments = loops.Parts(sums, tiles, size, block)
    threads.run(loops.sum_parts, parts, 1, arguments, geometry)
    return sums, parts


def _buffer(name: str, side: int, size: int, parts: int = 1) -> np.ndarray:
    return buffer(name, _shape(side, size, parts), np.float32)


def _shape(side: int, size: int, parts: int = 1) -> tuple[int, int]:
    return parts * side**2, size + loops.SKEW


def _tiles(x, y, axes: tuple[Axis, Axis], side: int) -> loops.Tiles:
    step = _STEPS[side]
    y_axis, x_axis = axes
    # An image of 2x2 pixels is a tile without the zeros around it.
    pads = (0, 0) if side == 3 else (y_axis.pad, x_axis.pad)
    return loops.Tiles(
        *(side, step, x, y, *x.shape[1:], *y.shape[1:]),
        *[stride // y.itemsize for stride in y.strides[:3]],
        *(*pads, -(-y_axis.out // step), -(-x_axis.out // step)),
    )
