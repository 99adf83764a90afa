"""Pooling in two dimensions without columns.

The public functions stand for methods of Chainer's and return ``NotImplemented`` for
what they do not cover.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
from chainer.utils.conv import get_conv_outsize

from chainer_revive.cpu import compiled, windows
from chainer_revive.cpu.columns import Axis
from chainer_revive.cpu.function_node import gradients, unwatched
from chainer_revive.cpu.layout import channels_first, channels_last, covered


def max_forward(self, inputs):
    """For ``MaxPoolingND``."""
    (x,) = inputs
    if self.ndim != 2 or not covered(x) or self.ksize[0] * self.ksize[1] > 255:
        return NotImplemented
    axes = _axes(x.shape[2:], self.ksize, self.stride, self.pad, self.cover_all)
    if axes is None:
        return NotImplemented
    self._in_shape, self._in_dtype = x.shape, x.dtype
    y = _outputs(x, axes)
    indexes = np.empty(y.shape, np.uint8)
    _functions(x.dtype).max_forward(channels_last(x), y, indexes, axes)
    self.indexes = channels_first(indexes)
    if self.return_indices:
        self.indexes = self.indexes.astype(np.int64)
    return (channels_first(y),)


def max_backward(self, indexes, grad_outputs):
    """For ``MaxPoolingND``."""
    if not unwatched():
        return NotImplemented
    return gradients(_max_gradient(self, grad_outputs[0].raw_array))


def max_gradient(self, inputs):
    """For ``MaxPoolingNDGrad``."""
    return _max_gradient(self.func, *inputs)


def _max_gradient(func, gy):
    if func.ndim != 2 or not covered(gy) or func.indexes.dtype != np.uint8:
        return NotImplemented
    if gy.shape != func.indexes.shape or gy.dtype != func._in_dtype:
        return NotImplemented
    axes = _axes(func._in_shape[2:], func.ksize, func.stride, func.pad, func.cover_all)
    gy, indexes = channels_last(gy), channels_last(func.indexes)
    gx = _images(func._in_shape, gy.dtype)
    _functions(gy.dtype).max_backward(gy, indexes, gx, axes)
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
    y = _outputs(x, axes)
    _functions(x.dtype).average_forward(channels_last(x), y, axes)
    return (channels_first(y),)


def average_backward(self, inputs):
    """For ``AveragePooling2DGrad``."""
    (gy,) = inputs
    if not covered(gy):
        return NotImplemented
    axes = _axes(self._in_shape[2:], *_window(self))
    if gy.shape != (*self._in_shape[:2], axes[0].out, axes[1].out):
        return NotImplemented
    gx = _images(self._in_shape, gy.dtype)
    _functions(gy.dtype).average_backward(channels_last(gy), gx, axes)
    return (channels_first(gx),)


def mean_backward(self, indexes, grad_outputs):
    """For ``Mean``, where it is over the pixels of images."""
    gy = grad_outputs[0].raw_array
    shape = self.inputs[0].shape
    if self.axis != (2, 3) or gy.shape != shape[:2]:
        return NotImplemented
    if not covered(gy) or not unwatched():
        return NotImplemented
    gx = _images(shape, gy.dtype)
    gx[...] = (gy * gy.dtype.type(self.multiplier))[:, None, None]
    return gradients((channels_first(gx),))


def _functions(dtype) -> ModuleType:
    return compiled.loops(dtype) or windows


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


def _outputs(x: np.ndarray, axes: tuple[Axis, Axis]) -> np.ndarray:
    return np.empty((len(x), axes[0].out, axes[1].out, x.shape[1]), x.dtype)


def _images(shape: tuple[int, ...], dtype) -> np.ndarray:
    n, c, h, w = shape
    return np.empty((n, h, w, c), dtype)
