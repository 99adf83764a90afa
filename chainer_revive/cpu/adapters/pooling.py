"""Pooling in two dimensions without columns.

The public functions stand for methods of Chainer's and return ``NotImplemented`` for
what they do not cover.
"""

from __future__ import annotations

import functools

import numpy as np
from chainer.utils.conv import get_conv_outsize

from chainer_revive.cpu import compiled, steps
from chainer_revive.cpu.axis import Axis
from chainer_revive.cpu.function_node import WATCHED, gradients, unwatched
from chainer_revive.cpu.layout import (
    NOT_COVERED,
    channels_first,
    channels_last,
    covered,
    is_channels_last,
)
from chainer_revive.explain import declined

_LARGE = 255  # elements of a window, which uint8 counts
_NO_IMAGES = "it is for means over the pixels of images, axes 2 and 3"
_NO_FIT = "the window does not fit into the image"


def max_forward(self, inputs):
    """For ``MaxPoolingND``."""
    (x,) = inputs
    if not covered(x):
        return declined(NOT_COVERED)
    if self.ndim != 2 or self.ksize[0] * self.ksize[1] > _LARGE:
        return declined(f"it is for two dimensions and windows of up to {_LARGE}")
    axes = _axes(x.shape[2:], self.ksize, self.stride, self.pad, self.cover_all)
    if axes is None:
        return declined(_NO_FIT)
    self._in_shape, self._in_dtype = x.shape, x.dtype
    y = _outputs(x, axes)
    indexes = np.empty(y.shape, np.uint8)
    compiled.fastest(x.dtype).pooling.max_forward(channels_last(x), y, indexes, axes)
    self.indexes = channels_first(indexes)
    if self.return_indices:
        self.indexes = self.indexes.astype(np.int64)
    return (channels_first(y),)


def max_backward(self, indexes, grad_outputs):
    """For ``MaxPoolingND``."""
    if not unwatched():
        return declined(WATCHED)
    return gradients(_max_gradient(self, grad_outputs[0].raw_array))


def max_gradient(self, inputs):
    """For ``MaxPoolingNDGrad``."""
    return _max_gradient(self.func, *inputs)


def _max_gradient(func, gy):
    if func.ndim != 2 or not covered(gy) or func.indexes.dtype != np.uint8:
        return declined(
            "nor was the pooling itself, or the gradient is of other arrays"
        )
    if gy.shape != func.indexes.shape or gy.dtype != func._in_dtype:
        return declined("the gradient has another shape or dtype than the output")
    axes = _axes(func._in_shape[2:], func.ksize, func.stride, func.pad, func.cover_all)
    gy, indexes = channels_last(gy), channels_last(func.indexes)
    gx = _images(func._in_shape, gy.dtype)
    compiled.fastest(gy.dtype).pooling.max_backward(gy, indexes, gx, axes)
    return (channels_first(gx),)


def average_forward(self, inputs):
    """For ``AveragePooling2D``."""
    (x,) = inputs
    if not covered(x):
        return declined(NOT_COVERED)
    axes = _axes(x.shape[2:], *_window(self))
    if axes is None:
        return declined(_NO_FIT)
    self._in_shape, self._in_dtype = x.shape, x.dtype
    y = _outputs(x, axes)
    compiled.fastest(x.dtype).pooling.average_forward(channels_last(x), y, axes)
    return (channels_first(y),)


def average_backward(self, inputs):
    """For ``AveragePooling2DGrad``."""
    (gy,) = inputs
    if not covered(gy):
        return declined(NOT_COVERED)
    axes = _axes(self._in_shape[2:], *_window(self))
    if gy.shape != (*self._in_shape[:2], axes[0].out, axes[1].out):
        return declined(_NO_FIT)
    gx = _images(self._in_shape, gy.dtype)
    compiled.fastest(gy.dtype).pooling.average_backward(channels_last(gy), gx, axes)
    return (channels_first(gx),)


def mean_forward(self, inputs):
    """For ``Mean``, where it is over the pixels of images."""
    (x,) = inputs
    if self.axis != (2, 3) or self.keepdims or x.ndim != 4:
        return declined(_NO_IMAGES)
    if not covered(x):
        return declined(NOT_COVERED)
    loops = compiled.loops(x.dtype)
    # NumPy adds up what lies side by side, as a single channel does, several at once.
    if loops is None or not is_channels_last(x) or x.shape[1] == 1:
        return declined(
            "compiled loops need Numba and float32, with several channels that are last"
        )
    self.multiplier = 1.0 / (x.shape[2] * x.shape[3])
    axes = _axes(x.shape[2:], x.shape[2:], (1, 1), (0, 0), False)
    y = np.empty(x.shape[:2], x.dtype)
    loops.pooling.average_forward(channels_last(x), y[:, None, None], axes)
    return (y,)


def mean_backward(self, indexes, grad_outputs):
    """For ``Mean``, where it is over the pixels of images."""
    gy = grad_outputs[0].raw_array
    shape = self.inputs[0].shape
    if self.axis != (2, 3) or gy.shape != shape[:2]:
        return declined(_NO_IMAGES)
    if not covered(gy):
        return declined(NOT_COVERED)
    if not unwatched():
        return declined(WATCHED)
    gx = _images(shape, gy.dtype)
    steps.do(_spread, gy, gy.dtype.type(self.multiplier), gx)
    return gradients((channels_first(gx),))


def _spread(gy, multiplier, gx) -> None:
    gx[...] = (gy * multiplier)[:, None, None]


def _window(self):
    return (self.kh, self.kw), (self.sy, self.sx), (self.ph, self.pw), False


def _axes(image, ksize, stride, pad, cover_all) -> tuple[Axis, Axis] | None:
    """Returns how the window steps along H and W; ``None`` if it does not fit."""
    return _axes_of(*image, *ksize, *stride, *pad, cover_all)


@functools.lru_cache(1024, typed=True)  # 2.0, which fails, must not be kept for 2
def _axes_of(h, w, kh, kw, sy, sx, ph, pw, cover_all) -> tuple[Axis, Axis] | None:
    axes = _axis(h, kh, sy, ph, cover_all), _axis(w, kw, sx, pw, cover_all)
    return None if None in axes else axes


def _axis(size, k, stride, pad, cover_all) -> Axis | None:
    out = get_conv_outsize(size, k, stride, pad, cover_all)
    if out <= 0:
        return None
    return Axis(size, out, first=0, taps=k, stride=stride, dilation=1, pad=pad)


def _outputs(x: np.ndarray, axes: tuple[Axis, Axis]) -> np.ndarray:
    return np.empty((len(x), axes[0].out, axes[1].out, x.shape[1]), x.dtype)


def _images(shape: tuple[int, ...], dtype) -> np.ndarray:
    n, c, h, w = shape
    return np.empty((n, h, w, c), dtype)
