"""Compiled loops of Winograd's convolution F(2x2, 3x3).

Tiles are counted through all images. Each thread transforms a block of them, multiplies
at each of the 16 points, and transforms the products back, so that only the kernel is
transformed as a whole.

See :mod:`chainer_revive.cpu.numba.threads` for what a task is. Numba frees an array
after its last use, even if its address is used later: loops take addresses anew.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from chainer_revive.cpu.numba.intrinsics import (
    COLUMNS,
    HALF,
    LANES,
    ROWS,
    floats,
    jit,
    multiply_half,
    multiply_tile,
    unpack,
    unpack_both,
)
from chainer_revive.cpu.numba.later import carray
from chainer_revive.cpu.numba.products import multiply
from chainer_revive.cpu.numba.threads import Task
from chainer_revive.cpu.numba.transforms import (
    POINTS,
    SIDE,
    STEP,
    TAPS,
    of_image,
    of_kernel,
    of_output,
    of_products,
    to_kernel,
)

_SUM = 128  # products that are added up before the rest is added
_SUM_OUTER = 32
# Between the points, so that those of a tile are not in one set of the cache.
SKEW = 5 * 16
_AT_BIAS = SIDE + 1  # the point that counts once in each result of a tile


class Kernel(NamedTuple):
    """A kernel (3, 3, c, d) of any strides, in elements, and its panels
    (16, P, c, COLUMNS), which are written.
    """

    w: int
    panels: int
    c: int
    d: int
    stride_y: int
    stride_x: int
    stride_c: int
    stride_d: int


class Tiles(NamedTuple):
    """Images (n, h, w, c), outputs (n, out_h, out_w, d) and their tiles.

    Attributes:
        images, rows, columns: The strides of the outputs, in elements.
        pad_y, pad_x: How far the first tile begins before the image.
        count_y, count_x: Tiles along H and W.
    """

    x: int
    y: int
    h: int
    w: int
    c: int
    out_h: int
    out_w: int
    d: int
    images: int
    rows: int
    columns: int
    pad_y: int
    pad_x: int
    count_y: int
    count_x: int


class Convolution(NamedTuple):
    """A kernel (16, P, c, COLUMNS), what to add to each channel of the outputs, and how
    many tiles are transformed at a time.
    """

    panels: int
    bias: int
    block: int


class Panels(NamedTuple):
    """Transforms (16, c / LANES, size, LANES) of images, a kernel (3, 3, c, d) of any
    strides, in elements, and what to add to each channel of the outputs.
    """

    v: int
    size: int
    bias: int
    w: int
    stride_y: int
    stride_x: int
    stride_c: int
    stride_d: int


class Points(NamedTuple):
    """Transforms (16, c / LANES, size, LANES) of images and (16, P, size, COLUMNS) of
    outputs, which are written, for the tiles from ``first`` on; z may be 0.
    """

    v: int
    z: int
    size: int
    first: int


class Sums(NamedTuple):
    """Sums (16, c, P * COLUMNS) of outer products of such transforms.

    Attributes:
        d: Columns that count.
        count: Tiles whose products are added.
        step: 0 for the first ones, which overwrite the sums, and 1 for others.
    """

    v: int
    z: int
    sums: int
    c: int
    d: int
    panels: int
    size: int
    count: int
    step: int


class Gradient(NamedTuple):
    """Such sums and the gradient (d, c, 3, 3), which is written."""

    sums: int
    result: int
    c: int
    d: int
    panels: int


@Task
def pack(arguments, start, stop):
    """Transforms panels of a kernel: each has COLUMNS of the columns."""
    k = unpack(arguments, Kernel)
    targets = _points(k.panels, -(-k.d // COLUMNS) * COLUMNS * k.c)
    for panel in range(start, stop):
        first, last = panel * COLUMNS, min(k.d, (panel + 1) * COLUMNS)
        _pack(k, k.c, first, last, targets, 4 * panel * k.c * COLUMNS)


@jit
def _pack(k, c, first, last, targets, to):
    """Transforms channels [first, last) of a kernel into a panel."""
    strides = 4 * k.stride_y, 4 * k.stride_x, 4 * k.stride_d
    for d in range(first, last, LANES):
        at = k.w + 4 * d * k.stride_d
        for q in range(c):
            of_kernel(
                *(at + 4 * q * k.stride_c, *strides, targets.ctypes.data),
                to + 4 * (q * COLUMNS + d - first),
            )
    _clear(targets, to, c, last - first)


@jit
def _clear(targets, to, count, found):
    """Clears the rest of panels; what is found there by chance may be slow."""
    if found not in (COLUMNS, HALF):
        for point in range(POINTS):
            panel = carray(floats(targets[point] + to), (count, COLUMNS))
            panel[:, found:] = 0


@Task
def convolve(arguments, start, stop):
    """Convolves tiles."""
    k, g = unpack_both(arguments, Convolution, Tiles)
    c, d, block = g.c, g.d, k.block
    zeros = np.zeros(max(c, -(-d // HALF) * HALF), np.float32)
    spare = np.empty(d, np.float32)
    v = np.empty(POINTS * (block * c + SKEW), np.float32)
    m = np.empty(POINTS * (block * d + SKEW), np.float32)
    panels_at = _points(k.panels, -(-d // COLUMNS) * COLUMNS * c)
    results = np.empty(STEP * STEP, np.int64)
    line, col, parts = _sums(c, block)
    for begin in range(start, stop, block):
        v_at = _points(v.ctypes.data, block * c)
        m_at = _points(m.ctypes.data, block * d)
        count = min(block, stop - begin)
        _transform_images(g, begin, count, v_at, block, zeros)
        row, out = _rows(count, LANES), _rows(count, d)
        for point in range(POINTS):
            bias = k.bias if point == _AT_BIAS else np.intp(zeros.ctypes.data)
            multiply(
                *(v_at[point], row, count, col.ctypes.data, panels_at[point]),
                *(c, line, parts, len(parts), bias, m_at[point], out, d),
            )
        for t in range(count):
            _outputs(g, begin + t, 0, spare, results)
            for q in range(0, d, LANES):
                at = 4 * (t * d + q)
                of_products(m_at.ctypes.data, at, results.ctypes.data, 4 * q)


@Task
def convolve_panels(arguments, start, stop):
    """Convolves all tiles, whose images are transformed already, with panels of a
    kernel, each transformed in turn.
    """
    p, g = unpack_both(arguments, Panels, Tiles)
    c, size = g.c, p.size
    zeros, spare = np.zeros(COLUMNS, np.float32), np.empty(COLUMNS, np.float32)
    u = np.empty(POINTS * (c * COLUMNS + SKEW), np.float32)
    m = np.empty(POINTS * (size * COLUMNS + SKEW), np.float32)
    v_at = _points(p.v, size * c)
    results = np.empty(STEP * STEP, np.int64)
    line, col, parts = _sums(c, size)
    row, out = _rows(size, LANES), _rows(size, COLUMNS)
    for panel in range(start, stop):
        first = panel * COLUMNS
        found = min(COLUMNS, g.d - first)
        u_at = _points(u.ctypes.data, c * COLUMNS)
        m_at = _points(m.ctypes.data, size * COLUMNS)
        _pack(p, c, first, first + found, u_at, 0)
        for point in range(POINTS):
            bias = p.bias + 4 * first
            if point != _AT_BIAS:
                bias = np.intp(zeros.ctypes.data)
            multiply(
                *(v_at[point], row, size, col.ctypes.data, u_at[point]),
                *(c, line, parts, len(parts), bias, m_at[point], out, found),
            )
        for t in range(size):
            _outputs(g, t, first, spare, results)
            for q in range(0, found, LANES):
                at = 4 * (t * COLUMNS + q)
                of_products(m_at.ctypes.data, at, results.ctypes.data, 4 * q)


@Task
def transform(arguments, start, stop):
    """Transforms tiles of images, and of outputs if there is a place for them."""
    p, g = unpack_both(arguments, Points, Tiles)
    zeros = np.zeros(max(g.c, g.d), np.float32)
    at = _points(p.v + 4 * start * LANES, p.size * g.c)
    _transform_images(g, p.first + start, stop - start, at, p.size, zeros)
    if p.z:
        _transform_outputs(p, g, start, stop, zeros)


@Task
def add_products(arguments, start, stop):
    """Sums outer products, for tiles of ROWS channels of each point."""
    s = unpack(arguments, Sums)
    c, size, panels = s.c, s.size, s.panels
    tiles = -(-c // ROWS)
    nothing = np.zeros(COLUMNS, np.float32)
    line, col = np.arange(s.count) * COLUMNS, np.arange(s.count) * LANES
    row, out = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64)
    for point in range(start // tiles, -(-stop // tiles)):
        first = max(start - point * tiles, 0)
        last = min(stop - point * tiles, tiles)
        v = s.v + 4 * point * (size * c + SKEW)
        z = s.z + 4 * point * (size * panels * COLUMNS + SKEW)
        sums = s.sums + 4 * point * (c * panels * COLUMNS + SKEW)
        for panel in range(panels):
            for tile in range(first, last):
                for r in range(ROWS):
                    q = min(tile * ROWS + r, c - 1)
                    row[r] = q // LANES * LANES * size + q % LANES
                    out[r] = q * panels * COLUMNS
                to = sums + 4 * panel * COLUMNS
                begin, step = (to, 1) if s.step else (np.intp(nothing.ctypes.data), 0)
                for at in range(0, s.count, _SUM_OUTER):
                    product = (
                        *(v, row.ctypes.data, col.ctypes.data + 8 * at),
                        *(z + 4 * panel * size * COLUMNS, line.ctypes.data + 8 * at),
                        *(min(s.count - at, _SUM_OUTER), begin, step, to),
                        out.ctypes.data,
                    )
                    if s.d - panel * COLUMNS > HALF:
                        multiply_tile(*product)
                    else:
                        multiply_half(*product)
                    begin, step = to, 1


@Task
def finish(arguments, start, stop):
    """Transforms sums into gradients, for groups of LANES channels of the outputs."""
    f = unpack(arguments, Gradient)
    sources = _points(f.sums, f.c * f.panels * COLUMNS)
    stride = 4 * f.c * TAPS * TAPS
    for group in range(start, stop):
        to = f.result + group * LANES * stride
        for q in range(f.c):
            at = 4 * (q * f.panels * COLUMNS + group * LANES)
            to_kernel(sources.ctypes.data, at, to + 4 * q * TAPS * TAPS, stride)


@jit
def _sums(c, size):
    """Returns where the terms of sums over channels are, and the parts of such sums."""
    q = np.arange(c)
    parts = np.empty((-(-c // _SUM), 2), np.int64)
    parts[:, 0] = np.arange(len(parts)) * _SUM
    parts[:, 1] = np.minimum(parts[:, 0] + _SUM, c)
    return q * COLUMNS, q // LANES * LANES * size + q % LANES, parts


@jit
def _rows(n, stride):
    """Returns where rows are, filled up to a multiple of ROWS by the last."""
    return np.minimum(np.arange(-(-n // ROWS) * ROWS), n - 1) * stride


@jit
def _transform_images(g, first, count, v_at, size, zeros):
    """Transforms tiles of images to (16, c / LANES, size, LANES)."""
    pixels = np.empty((count, POINTS), np.int64)
    for t in range(count):
        image, row, column = _position(g, first + t)
        top, left = row * STEP - g.pad_y, column * STEP - g.pad_x
        for i in range(SIDE):
            for j in range(SIDE):
                a, b = top + i, left + j
                place = np.intp(zeros.ctypes.data)
                if 0 <= a < g.h and 0 <= b < g.w:
                    place = g.x + 4 * ((image * g.h + a) * g.w + b) * g.c
                pixels[t, i * SIDE + j] = place
    for q in range(0, g.c, LANES):
        for t in range(count):
            to = 4 * (q * size + t * LANES)
            of_image(pixels[t].ctypes.data, 4 * q, v_at.ctypes.data, to)


@jit
def _transform_outputs(p, g, start, stop, zeros):
    """Transforms tiles of outputs to (16, P, size, COLUMNS)."""
    points_at = _points(p.z, p.size * -(-g.d // COLUMNS) * COLUMNS)
    outputs = np.empty((stop - start, STEP * STEP), np.int64)
    for t in range(start, stop):
        _outputs(g, p.first + t, 0, zeros, outputs[t - start])
    for q in range(0, g.d, LANES):
        panel_at = q // COLUMNS * p.size * COLUMNS + q % COLUMNS
        for t in range(start, stop):
            to = 4 * (panel_at + t * COLUMNS)
            table = outputs[t - start].ctypes.data
            of_output(table, 4 * q, points_at.ctypes.data, to)
    panel = (g.d - 1) // COLUMNS
    to = 4 * (panel * p.size + start) * COLUMNS
    _clear(points_at, to, stop - start, g.d - panel * COLUMNS)


@jit
def _outputs(g, tile, channel, other, table):
    """Sets a table to the addresses of a tile of outputs, or ``other`` outside."""
    image, row, column = _position(g, tile)
    for i in range(STEP):
        for j in range(STEP):
            a, b = row * STEP + i, column * STEP + j
            place = np.intp(other.ctypes.data)
            if a < g.out_h and b < g.out_w:
                pixel = image * g.images + a * g.rows + b * g.columns
                place = g.y + 4 * (pixel + channel)
            table[i * STEP + j] = place


@jit
def _position(g, tile):
    """Returns a tile's image, row and column."""
    return (
        tile // (g.count_x * g.count_y),
        tile // g.count_x % g.count_y,
        tile % g.count_x,
    )


@jit
def _points(first, size):
    """Returns the addresses of the points, each with so many elements."""
    return np.intp(first) + np.arange(POINTS) * 4 * (size + SKEW)
