"""Convolution in two dimensions and its gradients, with one group of channels or more.

The public functions stand for methods of Chainer's and return ``NotImplemented`` for
what they do not cover.
"""

from __future__ import annotations

import numpy as np
from chainer.utils.conv import get_conv_outsize

from chainer_revive.cpu import compiled, steps
from chainer_revive.cpu.adapters.elementwise import channel_sums
from chainer_revive.cpu.axis import Axis
from chainer_revive.cpu.function_node import (
    WATCHED,
    chosen,
    gradients,
    has_own_backward,
    unwatched,
)
from chainer_revive.cpu.layout import (
    NOT_COVERED,
    channels_first,
    channels_last,
    covered,
)
from chainer_revive.cpu.references import is_only_holder_of_variable
from chainer_revive.explain import declined

_NARROW = 4  # channels
_NO_FIT = (
    f"groups have fewer than {_NARROW} channels, or the shapes do not fit each other"
)


def forward(self, x, W, b):
    """For ``Convolution2DFunction``."""
    if not covered(x, W):
        return declined(NOT_COVERED)
    y = _planned(_forward, (self,), x, W, b)
    return y if y is NotImplemented else (y,)


def _forward(self, x, W, b=None):
    axes = _fit(self, x.shape, W.shape)
    if axes is None:
        return declined(_NO_FIT)
    kernel = _counting(W, axes).transpose(2, 3, 1, 0)
    correlate = compiled.fastest(x.dtype).convolution.correlate
    parts = _groups(self, (channels_last(x), 3), (kernel, 3), (b, 0))
    return _join([correlate(x, w, axes, b) for x, w, b in parts])


def backward(self, indexes, grad_outputs):
    """For ``Convolution2DFunction``."""
    # A Variable may have got another array since the forward pass.
    x, W = self.inputs[0].data, self.inputs[1].data
    gy = grad_outputs[0].raw_array
    if not unwatched():
        return declined(WATCHED)
    if not covered(x, W, gy):
        return declined(NOT_COVERED)
    arrays = _planned(_backward, (self, indexes), x, W, gy)
    if arrays is NotImplemented:
        return NotImplemented
    if 2 in indexes:
        arrays.append(channel_sums(gy))
    return gradients(arrays)


def add(self, indexes, grad_outputs, gxs) -> tuple | None:
    """Returns gradients, of which that by x is the one that was there, added to.

    Args:
        gxs (dict): A list of gradients for each input, from which that one is taken.

    Returns:
        tuple: Or ``None`` for what cannot be added in place.
    """
    there = gxs[self.inputs[0]] if indexes[0] == 0 else ()
    if len(there) != 1:
        return None
    before = (there.pop(),)
    axes = _axes_to_add(self, before, grad_outputs[0])
    if axes is None:
        there.append(before[0])
        return None
    others = ()
    if len(indexes) > 1:
        others = chosen(self, indexes[1:], self.backward(indexes[1:], grad_outputs))
    gx, gy = before[0]._data[0], grad_outputs[0].raw_array
    kernel = _counting(self.inputs[1].data, axes).transpose(2, 3, 0, 1)
    scatter = compiled.loops(gx.dtype).convolution.scatter
    scatter(channels_last(gy), kernel, axes, None, channels_last(gx))
    return (before[0], *others)


def _axes_to_add(self, before, grad_output) -> tuple | None:
    """Returns along what to add to the gradient by x if nobody else has it."""
    if (
        self.groups != 1
        # Others may need fewer products.
        or self.inputs[1].shape[2:] != (1, 1)
        or not unwatched()
        or not has_own_backward(self)
        or not is_only_holder_of_variable(before)
        or compiled.loops(before[0].dtype) is None
    ):
        return None
    gx, W, gy = before[0]._data[0], self.inputs[1].data, grad_output.raw_array
    return _fit(self, gx.shape, W.shape, gy.shape) if covered(gx, W, gy) else None


def _backward(self, indexes, x, W, gy):
    axes = _fit(self, x.shape, W.shape, gy.shape)
    if axes is None:
        return declined(_NO_FIT)
    arrays = []
    if 0 in indexes:
        arrays.append(_transposed(self, gy, W, None, axes))
    if 1 in indexes:
        arrays.append(_gradient_w(self, x, gy, W.shape, axes))
    return arrays


def _planned(compute, first, *arrays):
    """Returns ``compute(*first, *arrays)``, by a plan where there is one."""
    if arrays[-1] is None:
        arrays = arrays[:-1]
    loops = compiled.loops(arrays[0].dtype)
    if not loops or arrays[-1].dtype != arrays[0].dtype:
        return compute(*first, *arrays)
    self, *shape = first
    sizes = self.sy, self.sx, self.dy, self.dx, self.ph, self.pw, self.groups
    # A stride of 2.0 fails where one of 2 does not.
    key = compute, *shape, *sizes, *map(type, sizes), self.cover_all
    return loops.plans.run(key, arrays, compute, *first)


def gradient_w(self, x, gy):
    """For ``Convolution2DGradW``."""
    if x.dtype != self.W_dtype or not covered(x, gy):
        return declined(NOT_COVERED)
    axes = _fit(self, x.shape, self.W_shape, gy.shape)
    if axes is None:
        return declined(_NO_FIT)
    return (_gradient_w(self, x, gy, self.W_shape, axes),)


def _gradient_w(self, x, gy, W_shape, axes):
    correlate_outputs = compiled.fastest(x.dtype).convolution.correlate_outputs
    parts = _groups(self, (channels_last(x), 3), (channels_last(gy), 3))
    gWs = [correlate_outputs(x, gy, axes) for x, gy in parts]
    gW = steps.concatenate(gWs)
    if gW.shape == W_shape and gW.flags.c_contiguous:
        return gW
    result = steps.filled(W_shape, x.dtype, 0)
    steps.do(np.copyto, _counting(result, axes), gW)
    return result


def transposed(self, x, W, b):
    """For ``Deconvolution2DFunction``, which is also the gradient by x."""
    if not covered(x, W):
        return declined(NOT_COVERED)
    if _narrow(self, W.shape) or x.shape[1] != len(W):
        return declined(_NO_FIT)
    axes = _axes(self, (self.outh, self.outw), x.shape[2:], W.shape[2:])
    return (_transposed(self, x, W, b, axes),)


def _transposed(self, x, W, b, axes):
    kernel = _counting(W, axes).transpose(2, 3, 0, 1)
    scatter = compiled.fastest(x.dtype).convolution.scatter
    parts = _groups(self, (channels_last(x), 3), (kernel, 2), (b, 0))
    return _join([scatter(x, w, axes, b) for x, w, b in parts])


def _fit(self, x_shape, W_shape, y_shape=None) -> tuple[Axis, Axis] | None:
    """Returns how W steps along x; ``None`` for what is not covered or does not fit."""
    (n, c, h, w), (d, _, kh, kw) = x_shape, W_shape
    if _narrow(self, W_shape) or c != _channels(self, W_shape):
        return None
    out_h = get_conv_outsize(h, kh, self.sy, self.ph, self.cover_all, self.dy)
    out_w = get_conv_outsize(w, kw, self.sx, self.pw, self.cover_all, self.dx)
    if out_h <= 0 or out_w <= 0:
        return None  # Chainer has the message
    if y_shape not in (None, (n, d, out_h, out_w)):
        return None
    return _axes(self, (h, w), (out_h, out_w), (kh, kw))


def _axes(self, image, out, kernel) -> tuple[Axis, Axis]:
    return (
        Axis.of(image[0], out[0], kernel[0], self.sy, self.dy, self.ph),
        Axis.of(image[1], out[1], kernel[1], self.sx, self.dx, self.pw),
    )


def _channels(self, W_shape: tuple[int, ...]) -> int:
    """Returns the number of channels of the images."""
    return W_shape[1] * self.groups


def _narrow(self, W_shape: tuple[int, ...]) -> bool:
    """Tells whether groups are too narrow for a product each to pay."""
    return self.groups > 1 and min(W_shape[0] // self.groups, W_shape[1]) < _NARROW


def _groups(self, *arrays: tuple[np.ndarray | None, int]):
    """Splits each array along its axis, and yields what belongs to a group."""
    if self.groups == 1:
        return [[array for array, _ in arrays]]
    splits = (
        [None] * self.groups if array is None else np.split(array, self.groups, axis)
        for array, axis in arrays
    )
    return zip(*splits, strict=True)


def _counting(W: np.ndarray, axes: tuple[Axis, Axis]) -> np.ndarray:
    """Views the taps of W that meet more than padding."""
    y_axis, x_axis = axes
    return W[:, :, y_axis.kernel, x_axis.kernel]


def _join(ys: list[np.ndarray]) -> np.ndarray:
    return channels_first(steps.concatenate(ys, axis=3))
