"""Compiled convolutions: products whose left matrix is read from the image itself.

Element (i, k) of the left matrix is ``a[row[i] + col[k]]``, where ``row`` says where a
step of the kernel begins and ``col`` where its elements are from there (implicit GEMM).
Nothing is copied, and what is padding is left out.

See :mod:`chainer_revive.cpu.numba.threads` for what a task is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from chainer_revive.cpu import steps
from chainer_revive.cpu.buffers import LINE, zeros
from chainer_revive.cpu.numba.geometry import Geometry
from chainer_revive.cpu.numba.intrinsics import (
    COLUMNS,
    HALF,
    LANES,
    ROWS,
    TURNS,
    VECTORS,
    copy_lanes,
    copy_vector,
    fetch_to_read,
    fetch_to_write,
    floats,
    gather_lanes,
    integers,
    jit,
    multiply_gapless_ahead,
    multiply_gapless_all_ahead,
    multiply_gapless_and_fetch,
    multiply_half,
    multiply_tile,
    multiply_tile_ahead,
    multiply_tile_and_fetch,
    unpack,
    unpack_both,
)
from chainer_revive.cpu.numba.later import carray
from chainer_revive.cpu.numba.threads import Task
from chainer_revive.cpu.numba.transposes import TAPS, read_eight, read_taps, write_taps

_EIGHT = 8
SLICE = max(128, 4096 // COLUMNS)  # rows of a panel that stay in the nearest cache
_COPIED = 4  # panels for which a copy of the other matrix pays
_STEPS = 512  # of the kernel at a time; what they see stays in the cache
_STEPS_OUTER = 128
_SEEN = 96  # channels that are copied at a time
_CLOSE = 1 << 13  # results of a tap for which channels need no copy
_MANY = 16  # tiles for which a panel is packed, so that it stays in the nearest cache
_LINE = LINE // 4  # elements of a line of memory
_FETCHES = COLUMNS // _LINE * TURNS  # products that ask for all that follows
_AHEAD = 4  # channels, of which memory is asked for before their turn
SUM = 512  # products that are added up before the rest is added
# Numba compiles a function apart for literals.
_NONE, _ONE = np.int64(0), np.int64(1)


class Pack(NamedTuple):
    """A kernel (height, width, depth, n) of any strides, in elements, and its panels
    (P, height * width * depth, COLUMNS), which are written.
    """

    w: int
    panels: int
    height: int
    width: int
    depth: int
    n: int
    stride_y: int
    stride_x: int
    stride_k: int
    stride_n: int


class Correlation(NamedTuple):
    """How images are correlated with a packed kernel.

    Attributes:
        x: The images.
        panels: (P, k, COLUMNS).
        first: What each column begins with, and zeros up to a multiple of HALF; 0 to
            add to the results that are there.
        elements: Where the kernel's elements are, seen from a step (k,).
        sum: Products that are added up before the rest is added.
        y: The results, with n columns.
        images, rows, columns: The strides of the results.
        y_alike, x_alike: The steps along H and W that meet the same taps: rows of
            first and last step and tap; and how many rows there are.
        whole: All rows of steps, for parts of the work that are panels; else 0.
    """

    x: int
    panels: int
    first: int
    elements: int
    y: int
    n: int
    images: int
    rows: int
    columns: int
    k: int
    sum: int
    y_alike: int
    x_alike: int
    y_count: int
    x_count: int
    whole: int


class Columns(NamedTuple):
    """A matrix (m, k) without gaps, a kernel (k, n) of any strides, in elements, and
    their product (m, n) without gaps.

    Attributes:
        first: What each column begins with, and zeros up to a multiple of HALF; 0 to
            add to the results that are there.
    """

    a: int
    m: int
    k: int
    w: int
    stride_k: int
    stride_n: int
    first: int
    c: int
    n: int


class Margins(NamedTuple):
    """Rows of ``size`` elements, and rows of ``wide`` elements, which are written: the
    former from element ``first`` on, or without ``-first`` elements, and zeros.
    """

    source: int
    target: int
    size: int
    wide: int
    first: int


class OuterProducts(NamedTuple):
    """How outer products of what a kernel sees and the rows of a matrix are summed.

    Attributes:
        x: The images, ``total`` of them.
        taps: Where the kernel's taps are, seen from a step.
        depth: The channels of a tap, or of all taps of a row that count as one.
        y: The matrix, with n columns.
        results: (taps * depth, n), which are written.
        y_meet, x_meet: Which steps along H, and W, meet each tap (taps, 2).
    """

    x: int
    taps: int
    depth: int
    y: int
    n: int
    results: int
    total: int
    y_meet: int
    x_meet: int


class Transpose(NamedTuple):
    """A gradient (taps, c, d) of a kernel, and the result (d, c, taps)."""

    source: int
    result: int
    taps: int
    c: int
    d: int


def padded(b: np.ndarray | None, d: int) -> np.ndarray:
    """Returns a bias and zeros up to a multiple of HALF, which loops read, or zeros."""
    size = -(-d // HALF) * HALF
    if b is None:
        return zeros(size)
    if b.shape == (size,) and b.dtype == np.float32:
        return steps.contiguous(b)
    start = np.empty(size, np.float32)
    steps.do(_pad, start, b, d)
    return start


def _pad(start, b, d: int) -> None:
    start[:d] = b
    start[d:] = 0


@Task
def pack(arguments, start, stop):
    """Packs panels of a kernel: each has COLUMNS of the columns, row after row."""
    a = unpack(arguments, Pack)
    shape = -(-a.n // COLUMNS), a.height, a.width, a.depth, COLUMNS
    out = carray(floats(a.panels), shape)
    square = a.height == a.width == TAPS and a.stride_y == TAPS * a.stride_x
    for j in range(start, stop):
        first = j * COLUMNS
        found = min(COLUMNS, a.n - first)
        if found == COLUMNS and square and abs(a.stride_x) == 1:
            _pack_taps(a, first, out[j])
            continue
        for y in range(a.height):
            for x in range(a.width):
                start_at = y * a.stride_y + x * a.stride_x + first * a.stride_n
                address = a.w + 4 * start_at
                _pack(address, a.stride_k, a.stride_n, found, out[j, y, x])


@jit
def _pack_taps(a, first, out):
    """Copies 3x3 elements that lie side by side, in order or in reverse."""
    vectors = np.empty((TAPS * TAPS, LANES), np.float32)
    last = TAPS * TAPS - 1
    start = a.w if a.stride_x > 0 else a.w - 4 * last
    for i in range(a.depth * VECTORS):
        k, q = _along(i, a.depth, a.stride_k, a.stride_n)
        at = start + 4 * (k * a.stride_k + (first + q) * a.stride_n)
        if a.stride_k > a.stride_n:
            for line in range(0, 4 * LANES * a.stride_n, LINE):
                fetch_to_read(at + 4 * a.stride_k + line)
        read_taps(at, 4 * a.stride_n, vectors.ctypes.data)
        for tap in range(TAPS * TAPS):
            place = tap if a.stride_x > 0 else last - tap
            y, x = place // TAPS, place % TAPS
            for lane in range(LANES):
                out[y, x, k, q + lane] = vectors[tap, lane]


@jit
def _along(i, depth, sk, sn):
    """Returns the i-th row and columns in the order in which they lie in memory.

    In another order there are more streams at a time than a processor foresees.
    """
    if sk < sn:
        return i % depth, i // depth * LANES
    return i // VECTORS, i % VECTORS * LANES


@jit
def _pack(address, sk, sn, found, out):
    """Copies elements (K, found) into (K, COLUMNS) and fills up with zeros."""
    depth = len(out)
    a = carray(floats(address), (depth - 1) * sk + (found - 1) * sn + 1)
    if found == COLUMNS and sn == 1:
        for k in range(depth):
            copy_lanes(address + 4 * k * sk, out.ctypes.data + 4 * k * COLUMNS)
    elif found == COLUMNS:
        whole = depth // _EIGHT * _EIGHT if sk == 1 else _NONE
        for q in range(0, COLUMNS, LANES):
            for k in range(0, whole, _EIGHT):
                from_ = address + 4 * (k + q * sn)
                to = out.ctypes.data + 4 * (k * COLUMNS + q)
                read_eight(from_, 4 * sn, to, 4 * COLUMNS)
        for i in range((depth - whole) * VECTORS):
            k, q = _along(i, depth - whole, sk, sn)
            from_ = address + 4 * ((whole + k) * sk + q * sn)
            to = out.ctypes.data + 4 * ((whole + k) * COLUMNS + q)
            gather_lanes(from_, 4 * sn, to)
    else:
        for k in range(depth):
            for q in range(found):
                out[k, q] = a[k * sk + q * sn]
            for q in range(found, COLUMNS):
                out[k, q] = 0  # nobody reads what comes of it, but NaN would be slow


@Task
def correlate(arguments, start, stop):
    """Correlates rows of steps, counted through all images, with a packed kernel, or
    all rows with some of its panels.
    """
    c, g = unpack_both(arguments, Correlation, Geometry)
    skipped, columns = _NONE, c.n
    if c.whole:
        skipped = start * COLUMNS
        columns = min(stop * COLUMNS, c.n) - skipped
        start, stop = _NONE, c.whole
    first = c.first + 4 * skipped if c.first else _NONE
    y = c.y + 4 * skipped
    y_alike = carray(integers(c.y_alike), (c.y_count, 4))
    x_alike = carray(integers(c.x_alike), (c.x_count, 4))
    k = c.k
    line = np.arange(k) * COLUMNS
    lines = max(1, _STEPS // g.out_w)
    row = np.empty(lines * g.out_w + 2 * ROWS, np.int64)
    out = np.empty(len(row), np.int64)
    # Where each part of the kernel begins and ends.
    parts = np.empty((k, 2), np.int64)
    for begin in range(start, stop, lines):
        end = min(stop, begin + lines)
        for u in range(len(y_alike)):
            i0, i1 = y_alike[u, 2], y_alike[u, 3]
            for v in range(len(x_alike)):
                j0, j1 = x_alike[v, 2], x_alike[v, 3]
                m = _NONE
                for number in range(begin, end):
                    image, a = number // g.out_h, number % g.out_h
                    if a < y_alike[u, 0] or a >= y_alike[u, 1]:
                        continue
                    at = (image * g.h + a * g.stride_y - g.pad_y) * g.w - g.pad_x
                    to = image * c.images + a * c.rows
                    for b in range(x_alike[v, 0], x_alike[v, 1]):
                        row[m] = (at + b * g.stride_x) * g.c
                        out[m] = to + b * c.columns
                        m += 1
                if m == 0:
                    continue
                for r in range(m, m + 2 * ROWS):
                    row[r], out[r] = row[m - 1], out[m - 1]
                if i0 == i1 or j0 == j1:  # nothing but padding
                    if first:
                        _fill(first, y, out, m, columns)
                    continue
                # Rows of the kernel that are met in whole are one part.
                rows_met = i1 - i0 if j1 - j0 == g.taps_x else _ONE
                count = _NONE
                for i in range(i0, i1, rows_met):
                    at = (i * g.taps_x + j0) * g.c
                    last = at + rows_met * (j1 - j0) * g.c
                    while at < last:
                        parts[count, 0] = at
                        at = min(at + c.sum, last)
                        parts[count, 1] = at
                        count += 1
                multiply(
                    *(c.x, row, m, c.elements, c.panels + 4 * skipped * k, k, line),
                    *(parts, count, first, y, out, columns, c.whole),
                )


@Task
def multiply_columns(arguments, start, stop):
    """Computes panels of COLUMNS of a product, whose kernels are packed in turn."""
    p = unpack(arguments, Columns)
    row = np.empty(p.m + 2 * ROWS, np.int64)
    out = np.empty_like(row)
    # Rows that lie far apart are copied, for they have few places in the cache.
    copies = p.k > SLICE and stop - start >= _COPIED
    apart = SLICE if copies else p.k
    for i in range(len(row)):
        row[i], out[i] = min(i, p.m - 1) * apart, min(i, p.m - 1) * p.n
    col, line = np.arange(SLICE), np.arange(SLICE) * COLUMNS
    parts = np.zeros((1, 2), np.int64)
    panel = np.empty((SLICE, COLUMNS), np.float32)
    seen = np.empty((p.m if copies else 1, SLICE), np.float32)
    for at in range(0, p.k, SLICE):
        depth = min(SLICE, p.k - at)
        parts[0, 1] = depth
        left = p.a + 4 * at
        if copies:
            for i in range(p.m):
                to = seen.ctypes.data + 4 * i * SLICE
                _copy(p.a + 4 * (i * p.k + at), depth, to)
            left = np.intp(seen.ctypes.data)
        for j in range(start * COLUMNS, min(stop * COLUMNS, p.n), COLUMNS):
            found = min(COLUMNS, p.n - j)
            address = p.w + 4 * (at * p.stride_k + j * p.stride_n)
            _pack(address, p.stride_k, p.stride_n, found, panel[:depth])
            first = p.first + 4 * j if p.first and not at else _NONE
            addresses = np.intp(col.ctypes.data), np.intp(panel.ctypes.data)
            multiply(
                *(left, row, p.m, *addresses, depth, line, parts, _ONE),
                *(first, p.c + 4 * j, out, found, _NONE),
            )
    seen[0, 0] = 0  # Numba frees an array after its last use.


@jit
def multiply(a, row, m, col, panels, k, line, parts, count, first, c, out, n, fetches):
    """Sets c to the product with the panels, plus what each column begins with.

    Where ``first`` is 0, it adds the product to c. After m elements of ``row`` and
    ``out`` come the last ones again, 2 * ROWS times. If ``fetches``, panels come from
    memory: each part is asked for during the products with the one before it.
    """
    edge = np.empty((ROWS, COLUMNS), np.float32)
    edges = np.arange(2 * ROWS) % ROWS * COLUMNS
    rows, outs, lines = row.ctypes.data, out.ctypes.data, line.ctypes.data
    elements = carray(integers(col), k)
    for j in range(0, n, COLUMNS):
        panel = panels + 4 * j * k
        found = min(COLUMNS, n - j)
        # A part of the panel stays in the nearest cache meanwhile.
        for part in range(count):
            at, end = parts[part, 0], parts[part, 1]
            fresh = part == 0 and first != 0
            gapless = elements[end - 1] - elements[at] == end - 1 - at
            pace = (end - at) // TURNS * LINE
            if part + 1 < count:
                following = panel + 4 * parts[part + 1, 0] * COLUMNS
            else:
                following = panel + 4 * (k + parts[0, 0]) * COLUMNS
            for i in range(0, m, ROWS):
                if found in (COLUMNS, HALF):
                    to, to_rows = c + 4 * j, outs + 8 * i
                else:
                    to, to_rows = edge.ctypes.data, edges.ctypes.data
                    edge[:] = 0
                begin, step = (first + 4 * j, 0) if fresh else (to, 1)
                tile = (
                    *(a, rows + 8 * i, col + 8 * at, panel, lines + 8 * at, end - at),
                    *(begin, step, to, to_rows),
                )
                if found <= HALF:
                    multiply_half(*tile)
                elif fetches and i < _FETCHES * ROWS:
                    ahead = following + i // ROWS * pace
                    if gapless:
                        multiply_gapless_and_fetch(*tile, ahead, LINE)
                    else:
                        multiply_tile_and_fetch(*tile, ahead, LINE)
                elif not gapless:
                    multiply_tile_ahead(*tile)
                elif (
                    j == 0
                    and i + ROWS < m
                    and row[i + ROWS] - row[i] == ROWS * (end - at)
                ):  # What follows has not been read yet.
                    multiply_gapless_all_ahead(*tile, a + 4 * row[i + ROWS], 4 * ROWS)
                else:
                    multiply_gapless_ahead(*tile)
                if found in (COLUMNS, HALF):
                    continue
                for r in range(min(ROWS, m - i)):  # what follows is the last again
                    results = carray(floats(c + 4 * (out[i + r] + j)), found)
                    for q in range(found):
                        results[q] = edge[r, q] if fresh else results[q] + edge[r, q]


@jit
def _fill(values, c, out, m, n):
    """Sets c to what each column begins with."""
    values = carray(floats(values), n)
    for i in range(m):
        results = carray(floats(c + 4 * out[i]), n)
        for q in range(n):
            results[q] = values[q]


@Task
def pad(arguments, start, stop):
    """Copies rows [start, stop) between zeros."""
    p = unpack(arguments, Margins)
    before = max(0, p.first)
    after = min(p.wide, p.first + p.size)
    for i in range(start, stop):
        source, target = p.source + 4 * i * p.size, p.target + 4 * i * p.wide
        row = carray(floats(target), p.wide)
        row[:before] = 0
        _copy(source + 4 * (before - p.first), after - before, target + 4 * before)
        row[after:] = 0


@Task
def correlate_outputs(arguments, start, stop):
    """Sums the outer products of what the kernel sees and a row of another matrix.

    It does so for tiles [start, stop) of ROWS channels each, tap after tap.
    """
    o, g = unpack_both(arguments, OuterProducts, Geometry)
    x, n, total = o.x, o.n, o.total
    tiles = -(-o.depth // ROWS)
    lines = max(1, _STEPS_OUTER // g.out_w)
    size = lines * g.out_w
    # Whether the rows, and what the kernel sees, are copied to where they lie close:
    # not if they are as close as that, or each copy is used only once.
    packs = (stop - start >= _MANY and n > HALF) or n % HALF > 0
    sees = o.depth >= LANES and n > HALF and n * o.depth > _CLOSE
    single = g.taps_y * g.taps_x == 1
    width = COLUMNS if packs else n
    panels = np.empty((-(-n // COLUMNS) if packs else 1, size, COLUMNS), np.float32)
    seen = np.empty((size, _SEEN), np.float32)
    col, line = np.empty(size, np.int64), np.empty(size, np.int64)
    cols = np.arange(size) * _SEEN
    row, out = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64)
    nothing = np.zeros(COLUMNS, np.float32)
    edge, edges = np.empty((ROWS, COLUMNS), np.float32), np.arange(ROWS) * COLUMNS
    for begin in range(0, total * g.out_h, lines):
        end = min(total * g.out_h, begin + lines)
        count = (end - begin) * g.out_w
        right, apart = o.y + 4 * begin * g.out_w * n, 4
        if packs:
            for j in range(0, n, COLUMNS):
                found = min(COLUMNS, n - j)
                _pack(right + 4 * j, n, _ONE, found, panels[j // COLUMNS, :count])
            right, apart = np.intp(panels.ctypes.data), 4 * size
        last, tap, m = start, -1, 0
        while last < stop:
            tile = last
            if tile // tiles != tap:
                tap = tile // tiles
                m = _met(o, g, tap, begin, end, width, col, line)
            last = min(stop, (tap + 1) * tiles, tile + _SEEN // ROWS)
            first = tile % tiles * ROWS
            channels = min(o.depth - first, (last - tile) * ROWS)
            if not m and begin:
                continue
            left, columns = x, np.intp(col.ctypes.data)
            if sees:
                left, columns = np.intp(seen.ctypes.data), np.intp(cols.ctypes.data)
            for i in range(m if sees else 0):
                to = seen.ctypes.data + 4 * cols[i]
                _copy(x + 4 * (col[i] + first), channels, to)
            # What follows has not been read yet: a line of some rows for each tile.
            ahead, pace = x + 4 * (col[0] + size * g.c + first), 4 * g.c
            fetches = TURNS * -(-channels // _LINE) if single else 0
            more = TURNS * -(-n // _LINE) if single and tile == start else 0
            some = -(-m // TURNS)
            for j in range(0, n, COLUMNS):
                found = min(COLUMNS, n - j)
                to = o.results + 4 * j
                for i in range(0, channels, ROWS):
                    for r in range(ROWS):
                        q = min(i + r, channels - 1)
                        row[r] = q if sees else first + q
                        out[r] = (tap * o.depth + first + q) * n
                    zeros = np.intp(nothing.ctypes.data)
                    if not m:
                        _fill(zeros, to, out, ROWS, found)
                        continue
                    product = (
                        *(left, row.ctypes.data, columns),
                        *(right + j * apart, line.ctypes.data, m),
                    )
                    before, step = (to, 1) if begin else (zeros, 0)
                    if not fetches and more:
                        ahead, pace = o.y + 4 * end * g.out_w * n, 4 * n
                        fetches, more = more, 0
                    if found == COLUMNS and fetches:
                        place = to, out.ctypes.data
                        fetches -= 1
                        skipped = fetches % TURNS * some * pace
                        multiply_tile_and_fetch(
                            *product, before, step, *place, ahead + skipped, pace
                        )
                        ahead += 0 if fetches % TURNS else LINE
                    elif found == COLUMNS:
                        multiply_tile(*product, before, step, to, out.ctypes.data)
                    elif found == HALF:
                        multiply_half(*product, before, step, to, out.ctypes.data)
                    else:
                        place = edge.ctypes.data, edges.ctypes.data
                        if found > HALF:
                            multiply_tile(*product, zeros, 0, *place)
                        else:
                            multiply_half(*product, zeros, 0, *place)
                        for r in range(min(ROWS, channels - i)):
                            results = carray(floats(to + 4 * out[r]), found)
                            for q in range(found):
                                sum_before = results[q] if begin else np.float32(0)
                                results[q] = sum_before + edge[r, q]
    # Numba frees an array after its last use.
    nothing[0] = panels[0, 0, 0] = seen[0, 0] = 0


@jit
def _met(o, g, tap, begin, end, width, col, line):
    """Returns how many steps of rows [begin, end) meet a tap, and notes where in the
    images the tap is then, and where the rows of the matrix are.
    """
    y_meet = carray(integers(o.y_meet), (tap + 1, 2))
    x_meet = carray(integers(o.x_meet), (tap + 1, 2))
    taps = carray(integers(o.taps), tap + 1)
    m = _NONE
    for number in range(begin, end):
        image, y = number // g.out_h, number % g.out_h
        if not y_meet[tap, 0] <= y < y_meet[tap, 1]:
            continue
        at = (image * g.h + y * g.stride_y - g.pad_y) * g.w - g.pad_x
        for s in range(x_meet[tap, 0], x_meet[tap, 1]):
            col[m] = (at + s * g.stride_x) * g.c + taps[tap]
            line[m] = ((number - begin) * g.out_w + s) * width
            m += 1
    return m


@jit
def _copy(source, n, target):
    whole = n // LANES * LANES
    for q in range(0, whole, LANES):
        copy_vector(source + 4 * q, target + 4 * q)
    if whole < n:
        a, b = carray(floats(source), n), carray(floats(target), n)
        for q in range(whole, n):
            b[q] = a[q]


@Task
def transpose(arguments, start, stop):
    """Moves the taps to the end, blocks of COLUMNS of d at a time."""
    t = unpack(arguments, Transpose)
    taps, c, d = t.taps, t.c, t.d
    a = carray(floats(t.source), (taps, c, d))
    b = carray(floats(t.result), (d, c, taps))
    vectors = np.empty((TAPS * TAPS, LANES), np.float32)
    for block in range(start, stop):
        first, last = block * COLUMNS, min(d, (block + 1) * COLUMNS)
        whole = last if taps == TAPS * TAPS and last - first == COLUMNS else first
        for j in range(first, whole, LANES):
            for q in range(c):
                for tap in range(taps):
                    following = (tap * c + q + _AHEAD) * d + j
                    fetch_to_read(t.source + 4 * following)
                    for lane in range(LANES):
                        vectors[tap, lane] = a[tap, q, j + lane]
                to = t.result + 4 * (j * c + q) * taps
                for lane in range(LANES):
                    fetch_to_write(to + 4 * taps * (lane * c + _AHEAD))
                write_taps(vectors.ctypes.data, to, 4 * c * taps)
        for q in range(c):
            for j in range(whole, last):
                for tap in range(taps):
                    b[j, q, tap] = a[tap, q, j]
    vectors[0, 0] = 0  # Numba frees an array after its last use.
