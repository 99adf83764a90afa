"""Compiled convolutions: products whose left matrix is read from the image itself.

Element (i, k) of the left matrix is ``a[row[i] + col[k]]``, where ``row`` says where a
step of the kernel begins and ``col`` where its elements are from there (implicit GEMM).
Nothing is copied, and what is padding is left out.

See :mod:`chainer_mmix.backends.cpu.loops.pool` for what a task is.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba import carray

from chainer_mmix.backends.cpu.loops.intrinsics import (
    COLUMNS,
    ROWS,
    copy_lanes,
    floats,
    integers,
    multiply_tile,
    twelve,
)
from chainer_mmix.backends.cpu.loops.pool import Task

_STEPS = 512  # of the kernel at a time; what they see stays in the cache
_STEPS_OUTER = 128

_compile = numba.njit(nogil=True, cache=True)


class Geometry(NamedTuple):
    """How a kernel steps over images of shape (N, h, w, c).

    Attributes:
        out_h, out_w: Numbers of steps.
        stride_y, stride_x: From step to step.
        pad_y, pad_x: How far the first step begins before the image.
        taps_x: Elements of the kernel in a row.
        dilation_y, dilation_x: From element to element.
    """

    h: int
    w: int
    c: int
    out_h: int
    out_w: int
    stride_y: int
    stride_x: int
    pad_y: int
    pad_x: int
    taps_x: int
    dilation_y: int
    dilation_x: int


@Task
def pack(arguments, start, stop):
    """Packs panels of a kernel of shape (H, W, K, N) and any strides.

    A panel has COLUMNS of the columns, row after row. Arguments: the kernel, the panels
    (P, HWK, COLUMNS), H, W, K, N, and the strides.
    """
    w, panels = arguments[0], arguments[1]
    height, width, depth, n = arguments[2], arguments[3], arguments[4], arguments[5]
    sy, sx, sk, sn = arguments[6], arguments[7], arguments[8], arguments[9]
    shape = -(-n // COLUMNS), height, width, depth, COLUMNS
    out = carray(floats(panels), shape)
    for j in range(start, stop):
        first = j * COLUMNS
        for y in range(height):
            for x in range(width):
                address = w + 4 * (y * sy + x * sx + first * sn)
                _pack(address, sk, sn, min(COLUMNS, n - first), out[j, y, x])


@_compile
def _pack(address, sk, sn, found, out):
    """Copies elements (K, found) into (K, COLUMNS) and fills up with zeros."""
    depth = len(out)
    a = carray(floats(address), (depth - 1) * sk + (found - 1) * sn + 1)
    if found == COLUMNS and sn == 1:
        for k in range(depth):
            copy_lanes(address + 4 * k * sk, out.ctypes.data + 4 * k * COLUMNS)
    else:
        for k in range(depth):
            for q in range(found):
                out[k, q] = a[k * sk + q * sn]
            for q in range(found, COLUMNS):
                out[k, q] = 0


@Task
def correlate(arguments, start, stop):
    """Correlates rows of steps, counted through all images, with a packed kernel.

    Arguments: the images, the panels (P, K, COLUMNS), what each column begins with
    (P * COLUMNS,), where the kernel's elements are (K,), the results, their number of
    columns, their strides (images, rows, columns), K, the steps that meet the same taps
    (see ``_alike``) along H and W, and their numbers; a Geometry.
    """
    x, first, col, y, n = (
        arguments[0],
        arguments[2],
        arguments[3],
        arguments[4],
        arguments[5],
    )
    images, rows, columns, k = arguments[6], arguments[7], arguments[8], arguments[9]
    y_alike = carray(integers(arguments[10]), (arguments[12], 4))
    x_alike = carray(integers(arguments[11]), (arguments[13], 4))
    g = Geometry(*twelve(arguments, 14))
    panels = carray(floats(arguments[1]), (-(-n // COLUMNS), k, COLUMNS))
    line = np.arange(k) * COLUMNS
    lines = max(1, _STEPS // g.out_w)
    row = np.empty(lines * g.out_w + ROWS, np.int64)
    out = np.empty_like(row)
    # Where each part of the kernel begins and ends, and how many parts there are.
    parts = np.empty((k, 2), np.int64)
    for begin in range(start, stop, lines):
        end = min(stop, begin + lines)
        for u in range(len(y_alike)):
            for v in range(len(x_alike)):
                top, bottom, i0, i1 = y_alike[u]
                left, right, j0, j1 = x_alike[v]
                m = 0
                for number in range(begin, end):
                    image, a = number // g.out_h, number % g.out_h
                    if not top <= a < bottom:
                        continue
                    at = (image * g.h + a * g.stride_y - g.pad_y) * g.w - g.pad_x
                    to = image * images + a * rows
                    for b in range(left, right):
                        row[m] = (at + b * g.stride_x) * g.c
                        out[m] = to + b * columns
                        m += 1
                if not m:
                    continue
                row[m : m + ROWS] = row[m - 1]
                out[m : m + ROWS] = out[m - 1]
                if i0 == i1 or j0 == j1:  # nothing but padding
                    _fill(first, y, out[:m], n)
                    continue
                if j1 - j0 == g.taps_x:
                    count = 1
                    parts[0] = i0 * g.taps_x * g.c, i1 * g.taps_x * g.c
                else:
                    count = i1 - i0
                    for i in range(count):
                        at = (i0 + i) * g.taps_x
                        parts[i] = (at + j0) * g.c, (at + j1) * g.c
                _multiply(x, row, col, panels, line, parts[:count], first, y, out, m, n)


@_compile
def _multiply(a, row, col, panels, line, parts, first, c, out, m, n):
    """Sets c to the product with the panels, plus what each column begins with."""
    edge = np.empty((ROWS, COLUMNS), np.float32)
    edges = np.arange(ROWS) * COLUMNS
    for j in range(len(panels)):
        panel = panels[j].ctypes.data
        found = min(COLUMNS, n - j * COLUMNS)
        for i in range(0, m, ROWS):
            at = row[i:].ctypes.data
            if found == COLUMNS:
                to, outs = c + 4 * j * COLUMNS, out[i:].ctypes.data
            else:
                to, outs = edge.ctypes.data, edges.ctypes.data
            begin, step = first + 4 * j * COLUMNS, 0
            for part in range(len(parts)):
                k, end = parts[part]
                cols, lines = col + 8 * k, line[k:].ctypes.data
                multiply_tile(a, at, cols, panel, lines, end - k, begin, step, to, outs)
                begin, step = to, 1
            if found < COLUMNS:
                for r in range(ROWS):
                    to = c + 4 * (out[i + r] + j * COLUMNS)
                    results = carray(floats(to), found)
                    for q in range(found):
                        results[q] = edge[r, q]


@_compile
def _fill(values, c, out, n):
    """Sets c to what each column begins with."""
    values = carray(floats(values), n)
    for i in range(len(out)):
        results = carray(floats(c + 4 * out[i]), n)
        for q in range(n):
            results[q] = values[q]


@Task
def correlate_outputs(arguments, start, stop):
    """Sums the outer products of what the kernel sees and a row of another matrix.

    It does so for tiles [start, stop) of ROWS channels each, tap after tap. Arguments:
    the images, where the kernel's taps are (taps,), the other matrix, its columns, the
    results (taps * C, columns), the number of images, which steps along H, and along W,
    meet each tap (taps, 2); a Geometry.
    """
    x, b, n, c = arguments[0], arguments[2], arguments[3], arguments[4]
    total = arguments[5]
    g = Geometry(*twelve(arguments, 8))
    tiles = -(-g.c // ROWS)
    taps = carray(integers(arguments[1]), -(-stop // tiles))
    y_meet = carray(integers(arguments[6]), (len(taps), 2))
    x_meet = carray(integers(arguments[7]), (len(taps), 2))
    lines = max(1, _STEPS_OUTER // g.out_w)
    col = np.empty(lines * g.out_w, np.int64)
    line, edge_line = np.empty_like(col), np.empty_like(col)
    row, out = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64)
    whole = n // COLUMNS
    edge = np.empty((lines * g.out_w, COLUMNS), np.float32)
    sums = np.empty((ROWS, COLUMNS), np.float32)
    sums_at = np.arange(ROWS) * COLUMNS
    for begin in range(0, total * g.out_h, lines):
        end = min(total * g.out_h, begin + lines)
        if whole * COLUMNS < n:
            at = b + 4 * (begin * g.out_w * n + whole * COLUMNS)
            count = (end - begin) * g.out_w
            _pack(at, n, 1, n - whole * COLUMNS, edge[:count])
        last, m = -1, 0
        for tile in range(start, stop):
            tap = tile // tiles
            if tap != last:
                last, m = tap, 0
                for number in range(begin, end):
                    image, a = number // g.out_h, number % g.out_h
                    if not y_meet[tap, 0] <= a < y_meet[tap, 1]:
                        continue
                    at = (image * g.h + a * g.stride_y - g.pad_y) * g.w - g.pad_x
                    for s in range(x_meet[tap, 0], x_meet[tap, 1]):
                        col[m] = (at + s * g.stride_x) * g.c + taps[tap]
                        line[m] = (number * g.out_w + s) * n
                        edge_line[m] = ((number - begin) * g.out_w + s) * COLUMNS
                        m += 1
            if not m:
                continue
            first = tile % tiles * ROWS
            for r in range(ROWS):
                row[r] = min(first + r, g.c - 1)
                out[r] = (tap * g.c + row[r]) * n
            at, outs, cols = row.ctypes.data, out.ctypes.data, col.ctypes.data
            for j in range(whole):
                to = c + 4 * j * COLUMNS
                right = b + 4 * j * COLUMNS
                lines_at = line.ctypes.data
                multiply_tile(x, at, cols, right, lines_at, m, to, 1, to, outs)
            if whole * COLUMNS < n:
                sums[:] = 0
                to, right = sums.ctypes.data, edge.ctypes.data
                lines_at, outs = edge_line.ctypes.data, sums_at.ctypes.data
                multiply_tile(x, at, cols, right, lines_at, m, to, 1, to, outs)
                for r in range(min(ROWS, g.c - first)):
                    to = c + 4 * (out[r] + whole * COLUMNS)
                    results = carray(floats(to), n - whole * COLUMNS)
                    for q in range(len(results)):
                        results[q] += sums[r, q]


@Task
def transpose(arguments, start, stop):
    """Moves the gradient (T, C, D) of a kernel to (D, C, T), blocks of D at a time.

    Arguments: the one, the other, T, C and D.
    """
    taps, c, d = arguments[2], arguments[3], arguments[4]
    a = carray(floats(arguments[0]), (taps, c, d))
    b = carray(floats(arguments[1]), (d, c, taps))
    for block in range(start, stop):
        for q in range(c):
            for j in range(block * COLUMNS, min(d, (block + 1) * COLUMNS)):
                for t in range(taps):
                    b[j, q, t] = a[t, q, j]
