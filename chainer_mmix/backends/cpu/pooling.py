"""Pooling in two dimensions, tap by tap instead of through columns.

The public functions stand for methods of Chainer's and return ``NotImplemented`` for
what they do not cover.
"""

from __future__ import annotations

import numpy as np
from chainer.utils.conv import get_conv_outsize

from chainer_mmix.backends.cpu.columns import Axis, chunks, frame, meet
from chainer_mmix.backends.cpu.layout import channels_first, channels_last, covered

_PIECE = 1 << 18  # bytes of output that stay in the cache with all that belongs to it


def max_forward(self, inputs):
    """For ``MaxPoolingND``."""
    (x,) = inputs
    if self.ndim != 2 or not covered(x) or self.ksize[0] * self.ksize[1] > 255:
        return NotImplemented
    axes = _axes(x.shape[2:], self.ksize, self.stride, self.pad, self.cover_all)
    if axes is None:
        return NotImplemented
    self._in_shape, self._in_dtype = x.shape, x.dtype
    x = channels_last(x)
    shape = (len(x), axes[0].out, axes[1].out, x.shape[3])
    y, indexes = np.empty(shape, x.dtype), np.empty(shape, np.uint8)
    for images, rows in _pieces(y):
        y_axis, x_axis = axes[0].rows(rows), axes[1]
        seen = frame(x[images], y_axis, x_axis, -np.inf)
        taps = [
            seen[:, i :: y_axis.stride, j :: x_axis.stride][
                :, : y_axis.out, : x_axis.out
            ]
            for i in range(y_axis.taps)
            for j in range(x_axis.taps)
        ]
        largest, first = y[images, rows], indexes[images, rows]
        largest[...] = taps[0]
        for tap in taps[1:]:
            np.maximum(largest, tap, out=largest)
        # Counts the taps before the first that is the largest.
        first.fill(0)
        for tap in reversed(taps[:-1]):
            first += 1
            first *= (tap != largest).view(np.uint8)
    self.indexes = channels_first(indexes)
    if self.return_indices:
        self.indexes = self.indexes.astype(np.int64)
    return (channels_first(y),)


def max_backward(self, inputs):
    """For ``MaxPoolingNDGrad``."""
    (gy,) = inputs
    func = self.func
    if func.ndim != 2 or not covered(gy) or func.indexes.dtype != np.uint8:
        return NotImplemented
    axes = _axes(func._in_shape[2:], func.ksize, func.stride, func.pad, func.cover_all)
    gy, indexes = channels_last(gy), channels_last(func.indexes)
    gx = _zeros(func._in_shape, gy.dtype)
    bits = np.dtype(f"i{gy.itemsize}")
    for images, rows in _pieces(gy):
        y_axis, x_axis = axes[0].rows(rows), axes[1]
        for tap, (steps, elements) in enumerate(_taps(images, y_axis, x_axis)):
            # All bits where the tap was the largest, no bit elsewhere.
            mask = (indexes[images, rows][steps] == tap).view(np.int8)
            np.negative(mask, out=mask)
            part = np.bitwise_and(gy[images, rows][steps].view(bits), mask)
            gx[elements] += part.view(gy.dtype)
    return (channels_first(gx),)


def average_forward(self, inputs):
    """For ``AveragePooling2D``."""
    (x,) = inputs
    if not covered(x):
        return NotImplemented
    axes = _axes(x.shape[2:], *_window(self))
    if axes is None:
        return NotImplemented
    self._in_shape, self._in_dtype = x.shape, x.dtype
    x = channels_last(x)
    y = np.zeros((len(x), axes[0].out, axes[1].out, x.shape[3]), x.dtype)
    for images, rows in _pieces(y):
        for steps, elements in _taps(images, axes[0].rows(rows), axes[1]):
            y[images, rows][steps] += x[elements]
        y[images, rows] /= self.kh * self.kw
    return (channels_first(y),)


def average_backward(self, inputs):
    """For ``AveragePooling2DGrad``."""
    (gy,) = inputs
    if not covered(gy):
        return NotImplemented
    axes = _axes(self._in_shape[2:], *_window(self))
    gy = channels_last(gy) / gy.dtype.type(self.kh * self.kw)
    gx = _zeros(self._in_shape, gy.dtype)
    for images, rows in _pieces(gy):
        for steps, elements in _taps(images, axes[0].rows(rows), axes[1]):
            gx[elements] += gy[images, rows][steps]
    return (channels_first(gx),)


def _window(self):
    return (self.kh, self.kw), (self.sy, self.sx), (self.ph, self.pw), False


def _axes(image, ksize, stride, pad, cover_all) -> tuple[Axis, Axis] | None:
    """Returns how the window steps along H and W; ``None`` if it does not fit."""
    axes = []
    for size, k, s, p in zip(image, ksize, stride, pad, strict=True):
        out = get_conv_outsize(size, k, s, p, cover_all)
        if out <= 0:
            return None
        axes.append(Axis(size, out, first=0, taps=k, stride=s, dilation=1, pad=p))
    return tuple(axes)


def _zeros(shape: tuple[int, ...], dtype) -> np.ndarray:
    n, c, h, w = shape
    return np.zeros((n, h, w, c), dtype)


def _pieces(y: np.ndarray):
    row = y.shape[2] * y.shape[3] * y.itemsize
    return chunks(len(y), y.shape[1], row, _PIECE)


def _taps(images: slice, y_axis: Axis, x_axis: Axis):
    """Yields for each tap the steps at which it meets the image, and the elements."""
    for i in range(y_axis.taps):
        steps_y, image_y = meet(y_axis, i)
        for j in range(x_axis.taps):
            steps_x, image_x = meet(x_axis, j)
            yield (slice(None), steps_y, steps_x), (images, image_y, image_x)
