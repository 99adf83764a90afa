"""Pooling of images with channels last, (N, H, W, C).

``axes`` say how the window steps along H and W.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from chainer_revive.cpu.columns import Axis
from chainer_revive.cpu.loops import pool
from chainer_revive.cpu.loops.intrinsics import bytes_, floats, jit, twelve
from chainer_revive.cpu.loops.pool import Task

_GRAIN = 1 << 15  # elements that are worth a thread


def max_forward(x, y, indexes, axes: tuple[Axis, Axis]) -> None:
    """Writes the largest of each window to y, and which it is to indexes (uint8)."""
    row = y.shape[2] * y.shape[3] * axes[0].taps * axes[1].taps
    rows = len(y) * y.shape[1]
    pool.run(_max_forward, rows, -(-_GRAIN // row), x, y, indexes, *_sizes(x, axes))


def max_backward(gy, indexes, gx, axes: tuple[Axis, Axis]) -> None:
    grain = -(-_GRAIN * len(gx) // gx.size)
    pool.run(_max_backward, len(gx), grain, gy, gx, indexes, *_sizes(gx, axes))


def average_forward(x, y, axes: tuple[Axis, Axis]) -> None:
    row = y.shape[2] * y.shape[3] * axes[0].taps * axes[1].taps
    rows = len(y) * y.shape[1]
    pool.run(_average_forward, rows, -(-_GRAIN // row), x, y, 0, *_sizes(x, axes))


def average_backward(gy, gx, axes: tuple[Axis, Axis]) -> None:
    grain = -(-_GRAIN * len(gx) // gx.size)
    pool.run(_average_backward, len(gx), grain, gy, gx, 0, *_sizes(gx, axes))


def _sizes(x, axes):
    y_axis, x_axis = axes
    outs, taps = (y_axis.out, x_axis.out), (y_axis.taps, x_axis.taps)
    steps, pads = (y_axis.stride, x_axis.stride), (y_axis.pad, x_axis.pad)
    return *x.shape, *outs, *taps, *steps, *pads


@Task
def _max_forward(arguments, start, stop):
    n, h, w, c, out_h, out_w, taps_y, taps_x, sy, sx, py, px = twelve(arguments, 3)
    x = carray(floats(arguments[0]), (n, h, w, c))
    y = carray(floats(arguments[1]), (n * out_h, out_w, c))
    indexes = carray(bytes_(arguments[2]), (n * out_h, out_w, c))
    # As wide as the values, so that the processor compares several at once.
    taps = np.empty(c, np.int32)
    for line in range(start, stop):
        image, top = line // out_h, line % out_h * sy - py
        for b in range(out_w):
            left = b * sx - px
            largest = y[line, b]
            largest[:] = -np.inf
            taps[:] = 0
            for i in range(max(0, -top), min(taps_y, h - top)):
                for j in range(max(0, -left), min(taps_x, w - left)):
                    _keep_larger(
                        x[image, top + i, left + j],
                        largest,
                        taps,
                        np.int32(i * taps_x + j),
                    )
            for q in range(c):
                indexes[line, b, q] = taps[q]


@jit
def _keep_larger(values, largest, taps, tap):
    for q in range(len(taps)):
        value, last = values[q], largest[q]
        # As numpy.argmax: the first NaN is the largest.
        larger = (value > last) | ((value != value) & (last == last))
        largest[q] = value if larger else last
        taps[q] = tap if larger else taps[q]


@Task
def _max_backward(arguments, start, stop):
    n, h, w, c, out_h, out_w, taps_y, taps_x, sy, sx, py, px = twelve(arguments, 3)
    gy = carray(floats(arguments[0]), (n, out_h, out_w, c))
    gx = carray(floats(arguments[1]), (n, h, w, c))
    indexes = carray(bytes_(arguments[2]), (n, out_h, out_w, c))
    for image in range(start, stop):
        gx[image] = 0
        for a in range(out_h):
            top = a * sy - py
            for b in range(out_w):
                left = b * sx - px
                for i in range(max(0, -top), min(taps_y, h - top)):
                    for j in range(max(0, -left), min(taps_x, w - left)):
                        tap = np.uint8(i * taps_x + j)
                        for q in range(c):
                            hit = indexes[image, a, b, q] == tap
                            value = gy[image, a, b, q] if hit else np.float32(0)
                            gx[image, top + i, left + j, q] += value


@Task
def _average_forward(arguments, start, stop):
    n, h, w, c, out_h, out_w, taps_y, taps_x, sy, sx, py, px = twelve(arguments, 3)
    x = carray(floats(arguments[0]), (n, h, w, c))
    y = carray(floats(arguments[1]), (n * out_h, out_w, c))
    size = np.float32(taps_y * taps_x)
    for line in range(start, stop):
        image, top = line // out_h, line % out_h * sy - py
        for b in range(out_w):
            left = b * sx - px
            y[line, b] = 0
            for i in range(max(0, -top), min(taps_y, h - top)):
                for j in range(max(0, -left), min(taps_x, w - left)):
                    for q in range(c):
                        y[line, b, q] += x[image, top + i, left + j, q]
            for q in range(c):
                y[line, b, q] /= size


@Task
def _average_backward(arguments, start, stop):
    n, h, w, c, out_h, out_w, taps_y, taps_x, sy, sx, py, px = twelve(arguments, 3)
    gy = carray(floats(arguments[0]), (n, out_h, out_w, c))
    gx = carray(floats(arguments[1]), (n, h, w, c))
    size = np.float32(taps_y * taps_x)
    for image in range(start, stop):
        gx[image] = 0
        for a in range(out_h):
            top = a * sy - py
            for b in range(out_w):
                left = b * sx - px
                for i in range(max(0, -top), min(taps_y, h - top)):
                    for j in range(max(0, -left), min(taps_x, w - left)):
                        for q in range(c):
                            gx[image, top + i, left + j, q] += gy[image, a, b, q] / size
