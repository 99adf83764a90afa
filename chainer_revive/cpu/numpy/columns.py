"""im2col and col2im on channels-last images, in pieces that stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from chainer_revive.cpu.axis import Axis, meet
from chainer_revive.cpu.buffers import buffer

# Bytes of columns at a time: enough for an efficient product, and in the cache still
# when the product reads them.
CHUNK = 1 << 21


def chunks(n: int, height: int, row: int, limit: int) -> Iterator[tuple[slice, slice]]:
    """Cuts ``n`` images of ``height`` rows, ``row`` bytes each, into even pieces.

    Yields:
        The images and the rows of a piece of at most ``limit`` bytes, or of one row:
        some rows of one image or all rows of some images.
    """
    images = max(1, limit // (height * row))
    images = -(-n // -(-n // images))
    rows = height if images > 1 else min(height, max(1, limit // row))
    rows = -(-height // -(-height // rows))
    for i in range(0, n, images):
        for j in range(0, height, rows):
            yield slice(i, min(i + images, n)), slice(j, min(j + rows, height))


def im2col(x: np.ndarray, y_axis: Axis, x_axis: Axis) -> np.ndarray:
    """Returns what the kernel sees at each step, one step a row, in a buffer.

    Args:
        x (array): Images of shape (N, H, W, C).
        y_axis, x_axis: How the kernel steps along H and W.

    Returns:
        array: Shape (N * out_h * out_w, taps_h * taps_w * C).
    """
    n, _, _, c = x.shape
    shape = (n, y_axis.out, x_axis.out, y_axis.taps, x_axis.taps, c)
    col = buffer("columns", shape, x.dtype)
    x = frame(x, y_axis, x_axis, 0)
    batch, height, width, channel = x.strides
    strides = (
        batch,
        height * y_axis.stride,
        width * x_axis.stride,
        height * y_axis.dilation,
        width * x_axis.dilation,
        channel,
    )
    np.copyto(col, as_strided(x, shape, strides))
    return col.reshape(n * y_axis.out * x_axis.out, -1)


def frame(x: np.ndarray, y_axis: Axis, x_axis: Axis, padding: float) -> np.ndarray:
    """Returns what the kernel sees of images (N, H, W, C), with padding around it.

    The result is a view, or a buffer of shape (N, y_axis.extent, x_axis.extent, C).
    """
    shape, inner, outer = [], [], []
    for axis in (y_axis, x_axis):
        start = max(0, -axis.pad)
        stop = max(start, min(axis.size, axis.extent - axis.pad))
        shape.append(axis.extent)
        inner.append(slice(start, stop))
        outer.append(slice(start + axis.pad, stop + axis.pad))
    seen = x[:, inner[0], inner[1]]
    if seen.shape[1:3] == tuple(shape):
        return seen
    framed = buffer("frame", (len(x), *shape, x.shape[3]), x.dtype)
    framed.fill(padding)
    framed[:, outer[0], outer[1]] = seen
    return framed


def col2im(col: np.ndarray, x: np.ndarray, y_axis: Axis, x_axis: Axis) -> None:
    """Adds each row of columns to the elements of ``x`` that :func:`im2col` reads.

    Args:
        col (array): Shape (N * out_h * out_w, taps_h * taps_w * C).
        x (array): Images of shape (N, H, W, C), added to.
        y_axis, x_axis: How the kernel steps along H and W.
    """
    n, _, _, c = x.shape
    col = col.reshape(n, y_axis.out, x_axis.out, y_axis.taps, x_axis.taps, c)
    for i in range(y_axis.taps):
        steps_y, image_y = meet(y_axis, i)
        for j in range(x_axis.taps):
            steps_x, image_x = meet(x_axis, j)
            x[:, image_y, image_x] += col[:, steps_y, steps_x, i, j]
