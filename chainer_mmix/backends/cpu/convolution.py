"""Convolution in two dimensions and its gradients, as products of matrices.

The first three functions stand for methods of Chainer's, with one group of channels or
more, and return ``NotImplemented`` for what they do not cover.
"""

from __future__ import annotations

import numpy as np
from chainer.utils.conv import get_conv_outsize

from chainer_mmix.backends.cpu.columns import (
    CHUNK,
    Axis,
    buffer,
    chunks,
    col2im,
    im2col,
)
from chainer_mmix.backends.cpu.layout import channels_first, channels_last, covered

_NARROW = 4  # channels


def forward(self, x, W, b):
    """For ``Convolution2DFunction``."""
    if not covered(x, W) or _narrow(self, W.shape):
        return NotImplemented
    (_, _, h, w), (_, _, kh, kw) = x.shape, W.shape
    out_h = get_conv_outsize(h, kh, self.sy, self.ph, self.cover_all, self.dy)
    out_w = get_conv_outsize(w, kw, self.sx, self.pw, self.cover_all, self.dx)
    if out_h <= 0 or out_w <= 0:
        return NotImplemented  # Chainer has the message
    axes = _axes(self, (h, w), (out_h, out_w), (kh, kw))
    x = channels_last(x)
    ys = [
        correlate(part, _matrix(kernel, axes).T, axes)
        for part, kernel in zip(*_groups(self, (x, 3), (W, 0)), strict=True)
    ]
    return (_finish(ys, b),)


def gradient_w(self, x, gy):
    """For ``Convolution2DGradW``."""
    if x.dtype != self.W_dtype or not covered(x, gy) or _narrow(self, self.W_shape):
        return NotImplemented
    axes = _axes(self, x.shape[2:], gy.shape[2:], self.W_shape[2:])
    y_axis, x_axis = axes
    x, gy = channels_last(x), channels_last(gy)
    gWs = [
        correlate_outputs(*parts, axes)
        for parts in zip(*_groups(self, (x, 3), (gy, 3)), strict=True)
    ]
    gW = gWs[0] if len(gWs) == 1 else np.concatenate(gWs)
    if self.kh == self.kw == 1:
        return (gW.reshape(self.W_shape),)
    skips = y_axis.taps * x_axis.taps < self.kh * self.kw
    result = (np.zeros if skips else np.empty)(self.W_shape, x.dtype)
    out_c, c = self.W_shape[:2]
    result[:, :, y_axis.kernel, x_axis.kernel] = channels_first(
        gW.reshape(out_c, y_axis.taps, x_axis.taps, c)
    )
    return (result,)


def transposed(self, x, W, b):
    """For ``Deconvolution2DFunction``, which is also the gradient by x."""
    if not covered(x, W) or _narrow(self, W.shape):
        return NotImplemented
    image, out, kernel = (self.outh, self.outw), x.shape[2:], W.shape[2:]
    turn = self.sy == self.sx == 1 and len(W) <= 2 * W.shape[1] * self.groups
    if turn:  # With the kernel turned round it is a convolution, which only reads.
        W = W[:, :, ::-1, ::-1]
        axes = tuple(
            Axis.of(size, steps, k, 1, dilation, (k - 1) * dilation - pad)
            for size, steps, k, dilation, pad in zip(
                out, image, kernel, (self.dy, self.dx), (self.ph, self.pw), strict=True
            )
        )
    else:
        axes = _axes(self, image, out, kernel)
    x = channels_last(x)
    ys = [
        correlate(part, _turned_matrix(kernel, axes), axes)
        if turn
        else scatter(part, _matrix(kernel, axes), axes)
        for part, kernel in zip(*_groups(self, (x, 3), (W, 0)), strict=True)
    ]
    return (_finish(ys, b),)


def correlate(x: np.ndarray, matrix: np.ndarray, axes: tuple[Axis, Axis]) -> np.ndarray:
    """Multiplies what the kernel sees at each step by a matrix.

    Args:
        x (array): Images of shape (N, H, W, C).
        matrix (array): Shape (taps_h * taps_w * C, D).
        axes: How the kernel steps along H and W.

    Returns:
        array: Shape (N, out_h, out_w, D).
    """
    y_axis, x_axis = axes
    c, d = x.shape[3], matrix.shape[1]
    y = np.empty((len(x), y_axis.out, x_axis.out, d), x.dtype)
    if y_axis.trivial and x_axis.trivial:
        np.dot(x.reshape(-1, c), matrix, out=y.reshape(-1, d))
        return y
    row = x_axis.out * len(matrix) * x.itemsize
    for images, rows in chunks(len(x), y_axis.out, row, CHUNK):
        col = im2col(x[images], y_axis.rows(rows), x_axis)
        np.dot(col, matrix, out=y[images, rows].reshape(-1, d))
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
        array: Shape (D, taps_h * taps_w * C).
    """
    y_axis, x_axis = axes
    c, d = x.shape[3], y.shape[3]
    if y_axis.trivial and x_axis.trivial:
        return np.dot(y.reshape(-1, d).T, x.reshape(-1, c))
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
    return total


def scatter(y: np.ndarray, matrix: np.ndarray, axes: tuple[Axis, Axis]) -> np.ndarray:
    """Adds outputs times a matrix to what the kernel sees at their step.

    Args:
        y (array): Outputs of shape (N, out_h, out_w, D).
        matrix (array): Shape (D, taps_h * taps_w * C).
        axes: How the kernel steps along H and W.

    Returns:
        array: Images of shape (N, H, W, C).
    """
    y_axis, x_axis = axes
    d, k = matrix.shape
    c = k // (y_axis.taps * x_axis.taps)
    if y_axis.trivial and x_axis.trivial:
        return np.dot(y.reshape(-1, d), matrix).reshape(*y.shape[:3], c)
    x = np.zeros((len(y), y_axis.size, x_axis.size, c), y.dtype)
    row = x_axis.out * k * y.itemsize
    for images, rows in chunks(len(y), y_axis.out, row, CHUNK):
        steps = y[images, rows].reshape(-1, d)
        col = np.dot(steps, matrix, out=buffer("columns", (len(steps), k), y.dtype))
        col2im(col, x[images], y_axis.rows(rows), x_axis)
    return x


def _axes(self, image, out, kernel) -> tuple[Axis, Axis]:
    return (
        Axis.of(image[0], out[0], kernel[0], self.sy, self.dy, self.ph),
        Axis.of(image[1], out[1], kernel[1], self.sx, self.dx, self.pw),
    )


def _narrow(self, W_shape: tuple[int, ...]) -> bool:
    """Tells whether groups are too narrow for a product each to pay."""
    return self.groups > 1 and min(W_shape[0] // self.groups, W_shape[1]) < _NARROW


def _groups(self, *arrays: tuple[np.ndarray, int]) -> list[list[np.ndarray]]:
    """Splits each array along its axis into the groups of the convolution."""
    if self.groups == 1:
        return [[array] for array, _ in arrays]
    return [np.split(array, self.groups, axis) for array, axis in arrays]


def _matrix(W: np.ndarray, axes: tuple[Axis, Axis]) -> np.ndarray:
    """Returns the taps of W that count, shape (D, taps_h * taps_w * C)."""
    y_axis, x_axis = axes
    return channels_last(W[:, :, y_axis.kernel, x_axis.kernel]).reshape(len(W), -1)


def _turned_matrix(W: np.ndarray, axes: tuple[Axis, Axis]) -> np.ndarray:
    """Returns the taps of W that count, shape (taps_h * taps_w * D, C)."""
    y_axis, x_axis = axes
    W = W[:, :, y_axis.kernel, x_axis.kernel].transpose(2, 3, 0, 1)
    return np.ascontiguousarray(W).reshape(-1, W.shape[3])


def _finish(ys: list[np.ndarray], b: np.ndarray | None) -> np.ndarray:
    """Joins the groups and adds the bias."""
    y = ys[0] if len(ys) == 1 else np.concatenate(ys, axis=3)
    if b is not None:
        y += b
    return channels_first(y)
