"""Compiled loops of Winograd's convolutions F(2x2, 3x3) and F(4x4, 3x3).

Tiles are counted through all images. Each thread transforms a block of them, multiplies
at each point, and transforms the products back, so that only the kernel is transformed
as a whole. Points along H and W are what tells the transforms apart: see
:mod:`chainer_revive.cpu.numba.transforms`.

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
    multiply_half_in_parts,
    multiply_tile,
    multiply_tile_in_parts,
    unpack,
    unpack_both,
)
from chainer_revive.cpu.numba.later import carray
from chainer_revive.cpu.numba.threads import Task
from chainer_revive.cpu.numba.transforms import (
    of_image,
    of_kernel,
    of_output,
    of_products,
    to_kernel,
)
from chainer_revive.cpu.numba.transposes import TAPS, read_taps, write_taps

# Products that are added up before the rest is added, for 2x2 and 4x4 results.
_SUM, _SUM_FOUR = 128, 64
_SUM_OUTER = 32
_DEPTH = 64  # channels of which a panel is transformed at a time
# Between the points, so that those of a tile are not in one set of the cache.
SKEW = 5 * 16


class Kernel(NamedTuple):
    """A kernel (3, 3, c, d) and its panels (points, P, c, COLUMNS), which are written.

    Attributes:
        side: Points along H and W.
        turn: 1 or, if the elements lie in reverse order, -1.
        stride_c, stride_d: In elements; 3x3 elements lie side by side.
    """

    w: int
    panels: int
    side: int
    c: int
    d: int
    turn: int
    stride_c: int
    stride_d: int


class Tiles(NamedTuple):
    """Images (n, h, w, c), outputs (n, out_h, out_w, d) and their tiles.

    Attributes:
        side: Points along H and W.
        step: From tile to tile, 2 or 4.
        images, rows, columns: The strides of the outputs, in elements.
        pad_y, pad_x: How far the first tile begins before the image.
        count_y, count_x: Tiles along H and W.
    """

    side: int
    step: int
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
    """A kernel (points, P, c, COLUMNS), what to add to each channel of the outputs, and
    how many tiles are transformed at a time.
    """

    panels: int
    bias: int
    block: int


class Panels(NamedTuple):
    """Transforms (points, c / LANES, size, LANES) of images, a kernel (3, 3, c, d) as
    above, and what to add to each channel of the outputs.
    """

    v: int
    size: int
    bias: int
    w: int
    turn: int
    stride_c: int
    stride_d: int


class Points(NamedTuple):
    """Transforms (points, c / LANES, size, LANES) of images and, unless z is 0, those
    (points, P, size, COLUMNS) of outputs, which are written, for the tiles from
    ``first`` on.
    """

    v: int
    z: int
    size: int
    first: int


class Sums(NamedTuple):
    """Sums (points, c, P * COLUMNS) of outer products of such transforms.

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


class Parts(NamedTuple):
    """Sums (parts, points, c, P * COLUMNS) of such products.

    Attributes:
        total: Tiles of all parts.
        tiles: Of a part; the last one may have fewer.
        block: How many are transformed at a time.
    """

    sums: int
    total: int
    tiles: int
    block: int


class Gradient(NamedTuple):
    """Such sums and the gradient (d, c, 3, 3), which is written."""

    side: int
    sums: int
    parts: int
    result: int
    c: int
    d: int
    panels: int


@Task
def pack(arguments, start, stop):
    """Transforms panels of a kernel: each has COLUMNS of the columns."""
    k = unpack(arguments, Kernel)
    targets = _points(k.side, k.panels, _panels(k.d) * COLUMNS * k.c)
    for panel in range(start, stop):
        first, last = panel * COLUMNS, min(k.d, (panel + 1) * COLUMNS)
        _pack(k, k.side, 0, k.c, first, last, targets, 4 * panel * k.c * COLUMNS)


@jit
def _pack(k, side, begin, end, first, last, targets, to):
    """Transforms channels [begin, end) of images, [first, last) of outputs."""
    vectors = np.empty((TAPS * TAPS, LANES), np.float32)
    taps, stride = vectors.ctypes.data, 4 * LANES * k.turn
    start = taps if k.turn > 0 else taps + 4 * LANES * (TAPS * TAPS - 1)
    at = k.w if k.turn > 0 else k.w - 4 * (TAPS * TAPS - 1)
    for d in range(first, last, LANES):
        for q in range(begin, end):
            read_taps(at + 4 * (q * k.stride_c + d * k.stride_d), 4 * k.stride_d, taps)
            place = to + 4 * ((q - begin) * COLUMNS + d - first)
            of_kernel(side, start, stride, targets.ctypes.data, place)
    vectors[0, 0] = 0  # It is needed until here.
    _clear(targets, to, end - begin, last - first)


@jit
def _clear(targets, to, count, found):
    """Clears the rest of panels; what is found there by chance may be slow."""
    if found not in (COLUMNS, HALF):
        for point in range(len(targets)):
            panel = carray(floats(targets[point] + to), (count, COLUMNS))
            panel[:, found:] = 0


@Task
def convolve(arguments, start, stop):
    """Convolves tiles."""
    k, g = unpack_both(arguments, Convolution, Tiles)
    c, d, block, side = g.c, g.d, k.block, g.side
    width = _whole(d)
    zeros = np.zeros(max(c, COLUMNS), np.float32)
    spare = np.empty(d, np.float32)
    v = np.empty(side * side * (block * c + SKEW), np.float32)
    m = np.empty(side * side * (block * width + SKEW), np.float32)
    panels_at = _points(side, k.panels, _panels(d) * COLUMNS * c)
    results = np.empty(g.step * g.step, np.int64)
    line, col = _sums(c, block)
    for begin in range(start, stop, block):
        v_at = _points(side, v.ctypes.data, block * c)
        m_at = _points(side, m.ctypes.data, block * width)
        count = min(block, stop - begin)
        _transform_images(g, begin, count, v_at, block, zeros)
        row, out = _rows(count, LANES), _rows(count, width)
        for point in range(len(v_at)):
            for j in range(0, width, COLUMNS):
                _multiply(
                    *(side, v_at[point], row, col, panels_at[point] + 4 * j * c, line),
                    *(0, c, zeros, m_at[point] + 4 * j, out, width - j),
                )
        for t in range(count):
            _outputs(g, begin + t, 0, spare, results)
            for q in range(0, d, LANES):
                products = m_at.ctypes.data, 4 * (t * width + q)
                of_products(side, *products, k.bias + 4 * q, results.ctypes.data, 4 * q)


@Task
def convolve_panels(arguments, start, stop):
    """Convolves all tiles, whose images are transformed already, with panels of a
    kernel, each transformed in turn, some channels of the images at a time.
    """
    p, g = unpack_both(arguments, Panels, Tiles)
    c, size, side = g.c, p.size, g.side
    zeros, spare = np.zeros(COLUMNS, np.float32), np.empty(COLUMNS, np.float32)
    u = np.empty(side * side * (_DEPTH * COLUMNS + SKEW), np.float32)
    m = np.empty(side * side * (size * COLUMNS + SKEW), np.float32)
    v_at = _points(side, p.v, size * c)
    results = np.empty(g.step * g.step, np.int64)
    line, col = _sums(c, size)
    row, out = _rows(size, LANES), _rows(size, COLUMNS)
    for panel in range(start, stop):
        first = panel * COLUMNS
        found = min(COLUMNS, g.d - first)
        u_at = _points(side, u.ctypes.data, _DEPTH * COLUMNS)
        m_at = _points(side, m.ctypes.data, size * COLUMNS)
        for begin in range(0, c, _DEPTH):
            end = min(begin + _DEPTH, c)
            _pack(p, side, begin, end, first, first + found, u_at, 0)
            for point in range(len(v_at)):
                _multiply(
                    *(side, v_at[point], row, col, u_at[point], line),
                    *(begin, end, zeros, m_at[point], out, found),
                )
        for t in range(size):
            _outputs(g, t, first, spare, results)
            for q in range(0, found, LANES):
                products = m_at.ctypes.data, 4 * (t * COLUMNS + q)
                bias = p.bias + 4 * (first + q)
                of_products(side, *products, bias, results.ctypes.data, 4 * q)


@jit
def _multiply(side, a, row, col, panel, line, begin, end, zeros, m, out, n):
    """Adds products of channels [begin, end) with a panel to m, or sets it to them."""
    small = side < 6
    most = _SUM if small else _SUM_FOUR
    # A part of the panel stays in the nearest cache meanwhile.
    for at in range(begin, end, most):
        start, onward = (m, 1) if at else (np.intp(zeros.ctypes.data), 0)
        for i in range(0, len(row), ROWS):
            product = (
                *(a, row.ctypes.data + 8 * i, col.ctypes.data + 8 * at, panel),
                *(line.ctypes.data + 8 * (at - begin), min(end - at, most)),
                *(start, onward, m, out.ctypes.data + 8 * i),
            )
            # Errors of larger tiles are as small if parts are added up for themselves.
            if small and n > HALF:
                multiply_tile(*product)
            elif small:
                multiply_half(*product)
            elif n > HALF:
                multiply_tile_in_parts(*product)
            else:
                multiply_half_in_parts(*product)


@Task
def transform(arguments, start, stop):
    """Transforms tiles of images, and of outputs if there is a place for them."""
    p, g = unpack_both(arguments, Points, Tiles)
    zeros = np.zeros(max(g.c, g.d), np.float32)
    at = _points(g.side, p.v + 4 * start * LANES, p.size * g.c)
    _transform_images(g, p.first + start, stop - start, at, p.size, zeros)
    if p.z:
        at = _points(g.side, p.z + 4 * start * COLUMNS, p.size * _panels(g.d) * COLUMNS)
        _transform_outputs(g, p.first + start, stop - start, at, p.size, zeros)


@Task
def add_products(arguments, start, stop):
    """Sums outer products, for tiles of ROWS channels of each point."""
    s = unpack(arguments, Sums)
    c, size, width = s.c, s.size, s.panels * COLUMNS
    tiles = -(-c // ROWS)
    for point in range(start // tiles, -(-stop // tiles)):
        first = max(start - point * tiles, 0)
        last = min(stop - point * tiles, tiles)
        v = s.v + 4 * point * (size * c + SKEW)
        z = s.z + 4 * point * (size * width + SKEW)
        sums = s.sums + 4 * point * (c * width + SKEW)
        _add_products(v, z, sums, c, s.d, size, s.count, s.step, first, last)


@Task
def sum_parts(arguments, start, stop):
    """Sums outer products for parts of the tiles, transformed a block at a time."""
    p, g = unpack_both(arguments, Parts, Tiles)
    c, side, size, width = g.c, g.side, p.block, _panels(g.d) * COLUMNS
    zeros = np.zeros(max(c, g.d), np.float32)
    v = np.empty(side * side * (size * c + SKEW), np.float32)
    z = np.empty(side * side * (size * width + SKEW), np.float32)
    for part in range(start, stop):
        sums = p.sums + 4 * part * side * side * (c * width + SKEW)
        sums_at = _points(side, sums, c * width)
        end = min(p.total, (part + 1) * p.tiles)
        for first in range(part * p.tiles, end, size):
            v_at = _points(side, v.ctypes.data, size * c)
            z_at = _points(side, z.ctypes.data, size * width)
            count, more = min(size, end - first), int(first > part * p.tiles)
            _transform_images(g, first, count, v_at, size, zeros)
            _transform_outputs(g, first, count, z_at, size, zeros)
            for point in range(len(v_at)):
                places = v_at[point], z_at[point], sums_at[point]
                _add_products(*places, c, g.d, size, count, more, 0, -(-c // ROWS))
    v[0] = z[0] = 0  # They are needed until here.


@jit
def _add_products(v, z, sums, c, d, size, count, more, first, last):
    """Sums outer products at a point, for tiles [first, last) of ROWS channels.

    They are added to the sums that are there if ``more`` is 1, and not if it is 0.
    """
    nothing = np.zeros(COLUMNS, np.float32)
    line, col = np.arange(count) * COLUMNS, np.arange(count) * LANES
    row, out = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64)
    for panel in range(0, d, COLUMNS):
        for tile in range(first, last):
            for r in range(ROWS):
                q = min(tile * ROWS + r, c - 1)
                row[r] = q // LANES * LANES * size + q % LANES
                out[r] = q * _panels(d) * COLUMNS
            to = sums + 4 * panel
            begin, step = (to, 1) if more else (np.intp(nothing.ctypes.data), 0)
            for at in range(0, count, _SUM_OUTER):
                product = (
                    *(v, row.ctypes.data, col.ctypes.data + 8 * at),
                    *(z + 4 * panel * size, line.ctypes.data + 8 * at),
                    *(min(count - at, _SUM_OUTER), begin, step, to, out.ctypes.data),
                )
                if d - panel > HALF:
                    multiply_tile(*product)
                else:
                    multiply_half(*product)
                begin, step = to, 1


@Task
def finish(arguments, start, stop):
    """Transforms sums into gradients, for panels of channels of the outputs."""
    f = unpack(arguments, Gradient)
    size, points = f.c * f.panels * COLUMNS, f.side * f.side
    sources = _points(f.side, f.sums, size)
    vectors = np.empty((TAPS * TAPS, LANES), np.float32)
    taps, stride = vectors.ctypes.data, 4 * f.c * TAPS * TAPS
    for panel in range(start, stop):
        first = panel * COLUMNS
        for point in range(points):
            for part in range(1, f.parts):
                other = sources[point] + 4 * part * points * (size + SKEW)
                _add(other, sources[point], f.c, f.panels * COLUMNS, first, f.d)
        for d in range(first, min(first + COLUMNS, f.d), LANES):
            for q in range(f.c):
                at = 4 * (q * f.panels * COLUMNS + d)
                to_kernel(f.side, sources.ctypes.data, at, taps)
                write_taps(taps, f.result + d * stride + 4 * q * TAPS * TAPS, stride)
    vectors[0, 0] = 0  # It is needed until here.


@jit
def _add(source, target, c, width, first, d):
    """Adds a panel of one matrix (c, width), of which d columns count, to another's."""
    a, b = carray(floats(source), (c, width)), carray(floats(target), (c, width))
    for q in range(c):
        for i in range(first, min(first + COLUMNS, d)):
            b[q, i] += a[q, i]


@jit
def _panels(d):
    """Returns how many panels so many columns are."""
    return -(-d // COLUMNS)


@jit
def _whole(n):
    """Returns how many columns there are in halves of panels."""
    return -(-n // HALF) * HALF


@jit
def _sums(c, size):
    """Returns where the terms of sums over channels are."""
    q = np.arange(c)
    return q * COLUMNS, q // LANES * LANES * size + q % LANES


@jit
def _rows(n, stride):
    """Returns where rows are, filled up to a multiple of ROWS by the last."""
    return np.minimum(np.arange(-(-n // ROWS) * ROWS), n - 1) * stride


@jit
def _transform_images(g, first, count, v_at, size, zeros):
    """Transforms tiles of images to (points, c / LANES, size, LANES)."""
    extent = 2 if g.side == 3 else g.side  # in pixels
    pixels = np.empty((count, extent, extent), np.int64)
    for t in range(count):
        image, row, column = _position(g, first + t)
        top, left = row * g.step - g.pad_y, column * g.step - g.pad_x
        for i in range(extent):
            a = top + i
            inside = 0 <= a < g.h
            at = g.x + 4 * ((image * g.h + a) * g.w + left) * g.c
            for j in range(extent):
                seen = inside and 0 <= left + j < g.w
                place = at + 4 * j * g.c if seen else np.intp(zeros.ctypes.data)
                pixels[t, i, j] = place
    for q in range(0, g.c, LANES):
        for t in range(count):
            to = 4 * (q * size + t * LANES)
            of_image(g.side, pixels[t].ctypes.data, 4 * q, v_at.ctypes.data, to)


@jit
def _transform_outputs(g, first, count, z_at, size, zeros):
    """Transforms tiles of outputs to (points, P, size, COLUMNS)."""
    outputs = np.empty((count, g.step * g.step), np.int64)
    for t in range(count):
        _outputs(g, first + t, 0, zeros, outputs[t])
    for begin in range(0, g.d, COLUMNS):
        for t in range(count):
            table = outputs[t].ctypes.data
            for q in range(begin, min(begin + COLUMNS, g.d), LANES):
                to = 4 * (begin * size + t * COLUMNS + q - begin)
                of_output(g.side, table, 4 * q, z_at.ctypes.data, to)
    panel = (g.d - 1) // COLUMNS
    _clear(z_at, 4 * panel * size * COLUMNS, count, g.d - panel * COLUMNS)


@jit
def _outputs(g, tile, channel, other, table):
    """Sets a table to the addresses of a tile of outputs, or ``other`` outside."""
    image, row, column = _position(g, tile)
    for i in range(g.step):
        for j in range(g.step):
            a, b = row * g.step + i, column * g.step + j
            place = np.intp(other.ctypes.data)
            if a < g.out_h and b < g.out_w:
                pixel = image * g.images + a * g.rows + b * g.columns
                place = g.y + 4 * (pixel + channel)
            table[i * g.step + j] = place


@jit
def _position(g, tile):
    """Returns a tile's image, row and column."""
    return (
        tile // (g.count_x * g.count_y),
        tile // g.count_x % g.count_y,
        tile % g.count_x,
    )


@jit
def _points(side, first, size):
    """Returns the addresses of the points, each with so many elements."""
    return np.intp(first) + np.arange(side * side) * 4 * (size + SKEW)
