"""Convolution as products of matrices, with NumPy."""

from __future__ import annotations

import numpy as np

from chainer_revive.cpu.axis import Axis
from chainer_revive.cpu.buffers import buffer
from chainer_revive.cpu.numpy.columns import CHUNK, chunks, col2im, im2col


def correlate(
    x: np.ndarray, w: np.ndarray, axes: tuple[Axis, Axis], b: np.ndarray | None
) -> np.ndarray:
    """Multiplies what a kernel sees at each step by the kernel.

    Args:
        x (array): Images of shape (N, H, W, C).
        w (array): Kernel of shape (taps_h, taps_w, C, D), in any memory layout.
        axes: How the kernel steps along H and W.
        b (array): What to add, shape (D,).

    Returns:
        array: Shape (N, out_h, out_w, D).
    """
    y_axis, x_axis = axes
    c, d = w.shape[2:]
    # The same values in memory as the kernel that Chainer has, if it is one tap.
    matrix = np.ascontiguousarray(w.transpose(3, 0, 1, 2)).reshape(d, -1).T
    y = np.empty((len(x), y_axis.out, x_axis.out, d), x.dtype)
    if y_axis.trivial and x_axis.trivial:
        np.dot(x.reshape(-1, c), matrix, out=y.reshape(-1, d))
    else:
        row = x_axis.out * len(matrix) * x.itemsize
        for images, rows in chunks(len(x), y_axis.out, row, CHUNK):
            col = im2col(x[images], y_axis.rows(rows), x_axis)
            np.dot(col, matrix, out=y[images, rows].reshape(-1, d))
    if b is not None:
        y += b
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
        array: Shape (D, C, taps_h, taps_w), in any memory layout.
    """
    y_axis, x_axis = axes
    c, d = x.shape[3], y.shape[3]
    if y_axis.trivial and x_axis.trivial:
        return np.dot(y.reshape(-1, d).T, x.reshape(-1, c)).reshape(d, c, 1, 1)
    k = y_axis.taps * x_axis.taps * c
    total = part = np.empty((d, k), x.dtype)
    # Adding parts up must not cost more than the columns.
    limit = max(CHUNK, total.nbytes)
    for images, rows in chunks(len(x), y_axis.out, x_axis.out * k * x.itemsize, limit):
        col = im2col(x[images], y_axis.rows(rows), x_axis)
        np.dot(y[images, rows].reshape(-1, d).T, col, out=part)
        if part is not total:
            total += part
        part = buffer("part", total.shape, x.dtype)
    return total.reshape(d, y_axis.taps, x_axis.taps, c).transpose(0, 3, 1, 2)


def scatter(
    y: np.ndarray, w: np.ndarray, axes: tuple[Axis, Axis], b: np.ndarray | None
) -> np.ndarray:
    """Adds outputs times a kernel to what the kernel sees at their step.

    Args:
        y (array): Outputs of shape (N, out_h, out_w, D).
        w (array): Kernel of shape (taps_h, taps_w, D, C), in any memory layout.
        axes: How the kernel steps along H and W.
        b (array): What to add to the images, shape (C,).

    Returns:
        array: Images of shape (N, H, W, C).
    """
    y_axis, x_axis = axes
    d, c = w.shape[2:]
    if y_axis.stride == x_axis.stride == 1 and d <= 2 * c:
        # With the kernel turned round it is a correlation, which only reads.
        turned = tuple(_turned(axis) for axis in axes)
        return correlate(y, w[::-1, ::-1], turned, b)
    matrix = np.ascontiguousarray(w.transpose(2, 0, 1, 3)).reshape(d, -1)
    if y_axis.trivial and x_axis.trivial:
        x = np.dot(y.reshape(-1, d), matrix).reshape(*y.shape[:3], c)
    else:
        x = np.zeros((len(y), y_axis.size, x_axis.size, c), y.dtype)
        k = matrix.shape[1]
        row = x_axis.out * k * y.itemsize
        for images, rows in chunks(len(y), y_axis.out, row, CHUNK):
            steps = y[images, rows].reshape(-1, d)
            col = np.dot(steps, matrix, out=buffer("columns", (len(steps), k), y.dtype))
            col2im(col, x[images], y_axis.rows(rows), x_axis)
    if b is not None:
        x += b
    return x


def _turned(axis: Axis) -> Axis:
    """Returns how the images see the outputs, if the stride is one."""
    pad = (axis.taps - 1) * axis.dilation - axis.pad
    return axis._replace(size=axis.out, out=axis.size, pad=pad)
