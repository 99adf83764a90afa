"""ReLU, its gradient, sums and mixing, where there are compiled loops.

The public functions stand for methods of Chainer's and of ``Mix``, and return
``NotImplemented`` for what they do not cover.
"""

from __future__ import annotations

import numpy as np

from chainer_revive.cpu import compiled
from chainer_revive.cpu.function_node import gradients, unwatched
from chainer_revive.cpu.layout import (
    channels_first,
    channels_last,
    covered,
    is_channels_last,
)

_SMALL = 1 << 13  # elements for which NumPy is as fast


def relu(self, inputs):
    """For ``ReLU``."""
    (x,) = inputs
    loops = _loops(x)
    if not loops:
        return NotImplemented
    y = np.empty_like(x)
    loops.relu(x, y)
    self.retain_outputs((0,))
    return (y,)


def relu_backward(self, indexes, grad_outputs):
    """For ``ReLU``."""
    if not self._retained_output_data or not unwatched():
        return NotImplemented
    (y,) = self._retained_output_data
    node = self.outputs[0]()
    if node is not None and node.data is not y:  # a Variable has got another array
        return NotImplemented
    return gradients(_relu_gradient(y, grad_outputs[0].raw_array))


def relu_gradient(self, inputs):
    """For ``ReLUGrad2``."""
    return _relu_gradient(self.b, *inputs)


def _relu_gradient(y, gy):
    loops = _loops(y)
    if not loops or not covered(gy, y) or gy.shape != y.shape:
        return NotImplemented
    if gy.strides != y.strides:
        if not is_channels_last(y):
            return NotImplemented
        gy = channels_first(channels_last(gy))
    gx = np.empty_like(y)
    loops.relu_backward(y, gy, gx)
    return (gx,)


def add(self, inputs):
    """For ``Add``."""
    a, b = inputs
    loops = _loops(a)
    if not loops or not covered(a, b) or a.shape != b.shape or a.strides != b.strides:
        return NotImplemented
    y = np.empty_like(a)
    loops.total(a, b, y)
    return (y,)


def sums(self, inputs):
    """For ``Sum``, over all axes but the channels'."""
    (x,) = inputs
    if x.ndim < 2 or self.axis != (0, *range(2, x.ndim)) or self.keepdims:
        return NotImplemented
    return (channel_sums(x),) if _loops(x) else NotImplemented


def channel_sums(x: np.ndarray) -> np.ndarray:
    """Sums over all axes but the channels', as the gradient by a bias does."""
    loops = _loops(x)
    if not loops or not is_channels_last(x):
        return x.sum((0, *range(2, x.ndim)))
    return loops.channel_sums(channels_last(x).reshape(-1, x.shape[1]))


def mix(x, a, b, perm):
    """Returns ``a[n] * x[n] + b[n] * x[perm[n]]``."""
    loops = _loops_of_any_size(x)
    if not loops:
        return NotImplemented
    y = np.empty_like(x)
    weights = np.empty((2, len(x)), x.dtype)
    weights[0], weights[1] = a, b
    loops.mix(x, weights, np.ascontiguousarray(perm, np.int64), y)
    return y


def _loops(x):
    """Returns the compiled loops if they pay, for an array without gaps."""
    return _loops_of_any_size(x) if x.size >= _SMALL else None


def _loops_of_any_size(x):
    if not covered(x):
        return None
    if not x.flags.c_contiguous and not (x.ndim > 1 and is_channels_last(x)):
        return None
    return compiled.loops(x.dtype)
