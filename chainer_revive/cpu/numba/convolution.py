"""Convolution with the compiled products, shared among threads."""

from __future__ import annotations

import functools
import math

import numpy as np

from chainer_revive.cpu import steps
from chainer_revive.cpu.axis import Axis, meet
from chainer_revive.cpu.buffers import buffer, constant
from chainer_revive.cpu.function_node import winograd_wanted
from chainer_revive.cpu.numba import products, threads, winograd
from chainer_revive.cpu.numba.geometry import geometry
from chainer_revive.cpu.numba.intrinsics import COLUMNS, ROWS
from chainer_revive.explain import count_products

_WORK = 1 << 21  # multiplications that are worth a thread
_MOVES = 1 << 16  # copies that are
_FEWEST, _SMALL = 64, 1 << 16  # columns, and all, of sums that pay transposed
_JOINED = 3 / 4  # of the tiles, for which to join taps pays
_FEW_STEPS = 512  # for which threads share the columns of a kernel
_FEWEST_STEPS = 128  # for which they do so even if some of them wait long in the end
_WAIT = 1 / 8  # of the time that all threads take, which is not long


def correlate(
    x: np.ndarray,
    w: np.ndarray,
    axes: tuple[Axis, Axis],
    b: np.ndarray | None = None,
    y: np.ndarray | None = None,
    more: bool = False,
) -> np.ndarray:
    """Multiplies what the kernel sees at each step by the kernel.

    Args:
        x (array): Images of shape (N, H, W, C).
        w (array): Kernel of shape (taps_h, taps_w, C, D), in any memory layout.
        axes: How the kernel steps along H and W.
        b (array): What to add, shape (D,).
        y (array): Where to put the result: any view in which D is contiguous.
        more (bool): Whether to add it to what is there.

    Returns:
        array: Shape (N, out_h, out_w, D).
    """
    x, axes = _seen(x, axes)
    y_axis, x_axis = axes
    c, d = w.shape[2:]
    if y is None:
        y = np.empty((len(x), y_axis.out, x_axis.out, d), x.dtype)
    if min(w.strides[2:]) < 0 or not w.flags.aligned:
        w = steps.contiguous(w)
    side = _side(len(x), c, d, axes, outer=False)
    if side and not more:
        winograd.correlate(x, w, axes, b, y, side)
        return y
    count = -(-d // COLUMNS)
    k = w.shape[0] * w.shape[1] * c
    start = 0 if more else products.padded(b, d)
    n_step = len(x) * y_axis.out * x_axis.out
    few = n_step <= _FEW_STEPS and count >= threads.count()
    trivial = k == c and y_axis.trivial and x_axis.trivial
    in_turn = few and trivial and y.flags.c_contiguous
    shape = count, k, COLUMNS
    panels = steps.kept(w, shape, x.dtype)
    if in_turn and panels is None:
        _, _, stride_k, stride_n = w.strides
        arguments = products.Columns(
            *(x, n_step, c, w, stride_k // w.itemsize, stride_n // w.itemsize),
            *(start, y, d),
        )
        grain = -(-_WORK // (n_step * c * COLUMNS))
        threads.run(products.multiply_columns, count, grain, arguments)
        return y
    if panels is None:
        panels = buffer("panels", shape, x.dtype)
    strides = [stride // w.itemsize for stride in w.strides]
    grain = -(-_MOVES // (k * COLUMNS))
    arguments = products.Pack(w, panels, *w.shape, *strides)
    threads.run(products.pack, count, grain, arguments)
    _, elements, y_alike, x_alike = _tables(*x.shape[1:], *axes)
    rows = len(x) * y_axis.out
    waits = -count % threads.count()
    whole = few and (n_step <= _FEWEST_STEPS or waits <= _WAIT * count)
    arguments = products.Correlation(
        *(x, panels, start, elements, y, d),
        *[stride // y.itemsize for stride in y.strides[:3]],
        # As many at a time as multiply_columns adds up, for the same bits.
        *(k, products.SLICE if in_turn else products.SUM),
        *(y_alike, x_alike, len(y_alike), len(x_alike), rows if whole else 0),
    )
    if whole:
        n, grain = count, -(-_WORK // (n_step * k * COLUMNS))
    else:
        n, grain = rows, -(-_WORK // (x_axis.out * k * d))
    place = geometry(*x.shape[1:], *axes)
    threads.run(products.correlate, n, grain, arguments, place)
    return y


def correlate_outputs(
    x: np.ndarray, y: np.ndarray, axes: tuple[Axis, Axis]
) -> np.ndarray:
    """Sums the outer products of outputs and what the kernel sees at their step.

    Args:
        x (array): Images of shape (N, H, W, C).
        y (array): Outputs of shape (N, out_h, out_w, D).
        axes: How the kernel steps along H and W.

    Returns:
        array: Shape (D, C, taps_h, taps_w).
    """
    y = steps.contiguous(y)
    x, axes = _seen(x, axes)
    y_axis, x_axis = axes
    c, d = x.shape[3], y.shape[3]
    if side := _side(len(x), c, d, axes, outer=True):
        return winograd.correlate_outputs(x, y, axes, side)
    if y_axis.trivial and x_axis.trivial and not _is_wide(c, d):
        total = np.empty((d, c), x.dtype)
        _sum_outer(y, x, axes, total)
        return total.reshape(d, c, 1, 1)
    taps = y_axis.taps * x_axis.taps
    total = buffer("total", (taps * c, d), x.dtype)
    _sum_outer(x, y, axes, total)
    result = np.empty((d, c, y_axis.taps, x_axis.taps), x.dtype)
    grain = -(-_MOVES // (taps * c * COLUMNS))
    count = -(-d // COLUMNS)
    arguments = products.Transpose(total, result, taps, c, d)
    threads.run(products.transpose, count, grain, arguments)
    return result


def _sum_outer(x, y, axes, total) -> None:
    """Writes the same to an array of shape (taps_h * taps_w * C, D)."""
    depth, d = x.shape[3], y.shape[3]
    if _joins(depth, axes[1]):
        depth *= axes[1].taps
        x, axes = _with_margins(x, axes)
    taps, *_ = _tables(*x.shape[1:], *axes)
    tiles = len(taps) * -(-depth // ROWS)
    # Each part looks through all images: as many as there are threads.
    least = -(-_WORK // (y.size * ROWS))
    grain = max(least, -(-tiles // threads.count()))
    threads.run(
        products.correlate_outputs,
        tiles,
        grain,
        products.OuterProducts(x, taps, depth, y, d, total, len(x), *_meeting(*axes)),
        geometry(*x.shape[1:], *axes),
    )


def _is_wide(c: int, d: int) -> bool:
    """Tells whether it is faster to sum the transposed matrix (d, c)."""
    return c > d >= _FEWEST and c * d <= _SMALL


def _joins(c: int, axis: Axis) -> bool:
    """Tells whether tiles of the taps of a row are much fuller than those of a tap."""
    apart, joined = axis.taps * -(-c // ROWS), -(-axis.taps * c // ROWS)
    return axis.dilation == 1 and joined <= _JOINED * apart


def _with_margins(x: np.ndarray, axes: tuple[Axis, Axis]):
    """Pads images along W, so that each step meets all taps of a row of the kernel.

    These lie side by side then, and count as one tap.
    """
    y_axis, x_axis = axes
    n, h, w, c = x.shape
    wide = buffer("margins", (n, h, x_axis.extent, c), x.dtype)
    arguments = products.Margins(x, wide, w * c, x_axis.extent * c, x_axis.pad * c)
    threads.run(products.pad, n * h, -(-_MOVES // (x_axis.extent * c)), arguments)
    one = x_axis._replace(size=x_axis.extent, taps=1, pad=0)
    return wide, (y_axis, one)


def scatter(
    y: np.ndarray,
    w: np.ndarray,
    axes: tuple[Axis, Axis],
    b: np.ndarray | None = None,
    x: np.ndarray | None = None,
) -> np.ndarray:
    """Adds outputs times a kernel to what the kernel sees at their step.

    Images at which the same taps of the kernel arrive, those with the same remainder by
    the stride, are a correlation of the outputs.

    Args:
        y (array): Outputs of shape (N, out_h, out_w, D).
        w (array): Kernel of shape (taps_h, taps_w, D, C), in any memory layout.
        axes: How the kernel steps along H and W.
        b (array): What to add to the images, shape (C,).
        x (array): Contiguous images to add to, instead of new ones.

    Returns:
        array: Images of shape (N, H, W, C).
    """
    y_axis, x_axis = axes
    more = x is not None
    if y_axis.stride == x_axis.stride == 1:
        turned, taps = zip(*(_arriving(axis, 0) for axis in axes), strict=True)
        return correlate(y, w[taps], turned, b, x, more)
    if not more:
        shape = len(y), y_axis.size, x_axis.size, w.shape[3]
        # Nothing but this, where no tap arrives.
        x = steps.filled(shape, y.dtype, 0 if b is None else b)
    for i in range(min(y_axis.stride, y_axis.size)):
        for j in range(min(x_axis.stride, x_axis.size)):
            arriving = _arriving(y_axis, i), _arriving(x_axis, j)
            turned, taps = zip(*arriving, strict=True)
            if all(turned):
                part = x[:, i :: y_axis.stride, j :: x_axis.stride]
                correlate(y, w[taps], turned, b, part, more)
    return x


@functools.lru_cache(1024)
def _arriving(axis: Axis, first: int) -> tuple[Axis | None, slice]:
    """Returns how elements first, first + stride, ... see the outputs, by which taps.

    Element i sees output (i + pad - dilation * tap) / stride where that is whole.
    """
    common = math.gcd(axis.dilation, axis.stride)
    taps = [
        tap
        for tap in range(min(axis.taps, axis.stride // common))
        if (first + axis.pad - tap * axis.dilation) % axis.stride == 0
    ]
    if not taps:
        return None, slice(0)
    # Backwards, so that the outputs ascend.
    taps = range(taps[0], axis.taps, axis.stride // common)[::-1]
    seen = (first + axis.pad - taps[0] * axis.dilation) // axis.stride
    count = -(-(axis.size - first) // axis.stride)
    turned = Axis.of(axis.out, count, len(taps), 1, axis.dilation // common, -seen)
    taps = taps[turned.kernel]
    return turned, slice(taps[0], taps[-1] - 1 if taps[-1] else None, taps.step)


def _side(n, c, d, axes, outer) -> int:
    """Returns the points along H and W in Winograd's convolution; 0 for direct sums."""
    side = winograd.side(n, c, d, axes, outer, winograd_wanted())
    count_products("Winograd" if side else "direct sums")
    return side


def _seen(x: np.ndarray, axes: tuple[Axis, Axis]):
    """Leaves out what a kernel of one element steps over."""
    for axis in axes:
        if axis.taps > 1 or axis.pad > 0 or axis.extent - axis.pad > axis.size:
            return steps.contiguous(x), axes
    rows, columns = (
        slice(-axis.pad, axis.extent - axis.pad, axis.stride) for axis in axes
    )
    each = tuple(Axis.each(axis.out) for axis in axes)
    return steps.contiguous(x[:, rows, columns]), each


@functools.lru_cache(256)
def _tables(h: int, w: int, c: int, y_axis: Axis, x_axis: Axis):
    """Returns where taps, and their elements, lie from where a step begins, and which
    steps along H and W are alike."""
    rows = np.arange(y_axis.taps) * (y_axis.dilation * w)
    columns = np.arange(x_axis.taps) * x_axis.dilation
    taps = ((rows[:, None] + columns) * c).reshape(-1)
    elements = (taps[:, None] + np.arange(c)).reshape(-1)
    return tuple(map(constant, (taps, elements, _alike(y_axis), _alike(x_axis))))


def _alike(axis: Axis) -> np.ndarray:
    """Returns the first and last steps, and taps, of steps that meet the same taps."""
    met = []
    for step in range(axis.out):
        places = step * axis.stride - axis.pad + np.arange(axis.taps) * axis.dilation
        taps = np.flatnonzero((places >= 0) & (places < axis.size))
        first, last = (taps[0], taps[-1] + 1) if len(taps) else (0, 0)
        if met and met[-1][2:] == [first, last]:
            met[-1][1] = step + 1
        else:
            met.append([step, step + 1, first, last])
    return np.array(met, np.int64)


@functools.lru_cache(256)
def _meeting(y_axis: Axis, x_axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first and last steps, along H and W, at which each tap is met."""
    rows = [_steps(y_axis, i) for i in range(y_axis.taps)]
    columns = [_steps(x_axis, j) for j in range(x_axis.taps)]
    return (
        constant(np.repeat(np.array(rows, np.int64), len(columns), axis=0)),
        constant(np.tile(np.array(columns, np.int64), (len(rows), 1))),
    )


def _steps(axis: Axis, tap: int) -> tuple[int, int]:
    steps, _ = meet(axis, tap)
    return steps.start or 0, steps.stop
