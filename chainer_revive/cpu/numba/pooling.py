"""Pooling of images with channels last, (N, H, W, C).

``axes`` say how the window steps along H and W.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from chainer_revive.cpu.axis import Axis
from chainer_revive.cpu.numba import threads
from chainer_revive.cpu.numba.geometry import Geometry, geometry
from chainer_revive.cpu.numba.intrinsics import bytes_, floats, jit, unpack_both
from chainer_revive.cpu.numba.later import carray
from chainer_revive.cpu.numba.threads import Task

_GRAIN = 1 << 15  # elements that are worth a thread


class Pooling(NamedTuple):
    """Images (n, h, w, c), or the gradient by them; outputs (n, out_h, out_w, c), or
    the gradient by these; of max pooling, which element of each window was taken.
    """

    images: int
    outputs: int
    indexes: int
    n: int


def max_forward(x, y, indexes, axes: tuple[Axis, Axis]) -> None:
    """Writes the largest of each window to y, and which it is to indexes (uint8)."""
    row = y.shape[2] * y.shape[3] * axes[0].taps * axes[1].taps
    rows = len(y) * y.shape[1]
    arguments = Pooling(x, y, indexes, len(x)), geometry(*x.shape[1:], *axes)
    threads.run(_max_forward, rows, -(-_GRAIN // row), *arguments)


def max_backward(gy, indexes, gx, axes: tuple[Axis, Axis]) -> None:
    grain = -(-_GRAIN * len(gx) // gx.size)
    arguments = Pooling(gx, gy, indexes, len(gx)), geometry(*gx.shape[1:], *axes)
    threads.run(_max_backward, len(gx), grain, *arguments)


def average_forward(x, y, axes: tuple[Axis, Axis]) -> None:
    row = y.shape[2] * y.shape[3] * axes[0].taps * axes[1].taps
    rows = len(y) * y.shape[1]
    arguments = Pooling(x, y, 0, len(x)), geometry(*x.shape[1:], *axes)
    threads.run(_average_forward, rows, -(-_GRAIN // row), *arguments)


def average_backward(gy, gx, axes: tuple[Axis, Axis]) -> None:
    grain = -(-_GRAIN * len(gx) // gx.size)
    arguments = Pooling(gx, gy, 0, len(gx)), geometry(*gx.shape[1:], *axes)
    threads.run(_average_backward, len(gx), grain, *arguments)


@Task
def _max_forward(arguments, start, stop):
    a, g = unpack_both(arguments, Pooling, Geometry)
    x = carray(floats(a.images), (a.n, g.h, g.w, g.c))
    y = carray(floats(a.outputs), (a.n * g.out_h, g.out_w, g.c))
    indexes = carray(bytes_(a.indexes), (a.n * g.out_h, g.out_w, g.c))
    # As wide as the values, so that the processor compares several at once.
    taps = np.empty(g.c, np.int32)
    for line in range(start, stop):
        image, top = line // g.out_h, line % g.out_h * g.stride_y - g.pad_y
        for column in range(g.out_w):
            left = column * g.stride_x - g.pad_x
            largest = y[line, column]
            largest[:] = -np.inf
            taps[:] = 0
            end = min(g.taps_x, g.w - left)
            for i in range(max(0, -top), min(g.taps_y, g.h - top)):
                row = x[image, top + i]
                # Several at a time, so that the largest stays in registers meanwhile.
                for j in range(max(0, -left), end, 3):
                    tap = np.int32(i * g.taps_x + j)
                    first, second = row[left + j], row[left + min(j + 1, end - 1)]
                    if j + 2 == end:
                        _keep_largest_of_two(first, second, largest, taps, tap)
                    else:  # The last one may come again: it is not larger.
                        third = row[left + min(j + 2, end - 1)]
                        _keep_largest(first, second, third, largest, taps, tap)
            for q in range(g.c):
                indexes[line, column, q] = taps[q]


@jit
def _keep_largest(first, second, third, largest, taps, tap):
    for q in range(len(taps)):
        best = _larger(first[q], tap, largest[q], taps[q])
        best = _larger(second[q], tap + np.int32(1), *best)
        largest[q], taps[q] = _larger(third[q], tap + np.int32(2), *best)


@jit
def _keep_largest_of_two(first, second, largest, taps, tap):
    for q in range(len(taps)):
        best = _larger(first[q], tap, largest[q], taps[q])
        largest[q], taps[q] = _larger(second[q], tap + np.int32(1), *best)


@jit
def _larger(value, tap, last, last_tap):
    # As numpy.argmax: the first NaN is the largest.
    if (value <= last) | (last != last):
        return last, last_tap
    return value, tap


@Task
def _max_backward(arguments, start, stop):
    a, g = unpack_both(arguments, Pooling, Geometry)
    gy = carray(floats(a.outputs), (a.n, g.out_h, g.out_w, g.c))
    gx = carray(floats(a.images), (a.n, g.h, g.w, g.c))
    indexes = carray(bytes_(a.indexes), (a.n, g.out_h, g.out_w, g.c))
    for image in range(start, stop):
        gx[image] = 0
        for row in range(g.out_h):
            top = row * g.stride_y - g.pad_y
            for column in range(g.out_w):
                left = column * g.stride_x - g.pad_x
                for i in range(max(0, -top), min(g.taps_y, g.h - top)):
                    for j in range(max(0, -left), min(g.taps_x, g.w - left)):
                        tap = np.uint8(i * g.taps_x + j)
                        for q in range(g.c):
                            hit = indexes[image, row, column, q] == tap
                            value = gy[image, row, column, q] if hit else np.float32(0)
                            gx[image, top + i, left + j, q] += value


@Task
def _average_forward(arguments, start, stop):
    a, g = unpack_both(arguments, Pooling, Geometry)
    x = carray(floats(a.images), (a.n, g.h, g.w, g.c))
    y = carray(floats(a.outputs), (a.n * g.out_h, g.out_w, g.c))
    size = g.taps_y * g.taps_x
    # Of many terms, float32 would lose much.
    sums = np.empty(g.c, np.float64)
    for line in range(start, stop):
        image, top = line // g.out_h, line % g.out_h * g.stride_y - g.pad_y
        for column in range(g.out_w):
            left = column * g.stride_x - g.pad_x
            sums[:] = 0
            for i in range(max(0, -top), min(g.taps_y, g.h - top)):
                for j in range(max(0, -left), min(g.taps_x, g.w - left)):
                    for q in range(g.c):
                        sums[q] += x[image, top + i, left + j, q]
            for q in range(g.c):
                y[line, column, q] = sums[q] / size


@Task
def _average_backward(arguments, start, stop):
    a, g = unpack_both(arguments, Pooling, Geometry)
    gy = carray(floats(a.outputs), (a.n, g.out_h, g.out_w, g.c))
    gx = carray(floats(a.images), (a.n, g.h, g.w, g.c))
    size = np.float32(g.taps_y * g.taps_x)
    for image in range(start, stop):
        gx[image] = 0
        for row in range(g.out_h):
            top = row * g.stride_y - g.pad_y
            for column in range(g.out_w):
                left = column * g.stride_x - g.pad_x
                for i in range(max(0, -top), min(g.taps_y, g.h - top)):
                    for j in range(max(0, -left), min(g.taps_x, g.w - left)):
                        for q in range(g.c):
                            gx[image, top + i, left + j, q] += (
                                gy[image, row, column, q] / size
                            )
