"""ReLU, its gradient and sums, in compiled loops where these pay.

The public functions stand for methods of Chainer's and return ``NotImplemented`` for
what they do not cover.
"""

from __future__ import annotations

import numpy as np

from chainer_revive.cpu import compiled, steps
from chainer_revive.cpu.function_node import WATCHED, gradients, unwatched
from chainer_revive.cpu.layout import (
    NOT_COVERED,
    channels_first,
    channels_last,
    covered,
    is_channels_last,
)
from chainer_revive.explain import declined

_SMALL = 1 << 13  # elements for which NumPy is as fast
_NO_LOOPS = (
    f"NumPy is as fast below {_SMALL} elements, and compiled loops need Numba and "
    "float32 arrays of one shape and memory layout, without gaps"
)


def relu(self, inputs):
    """For ``ReLU``."""
    (x,) = inputs
    if not covered(x):
        return declined(NOT_COVERED)
    loops = _loops(x)
    y = np.empty_like(x)
    if loops:
        loops.elementwise.relu(x, y)
    else:
        steps.do(_rectify, x, y)
    self.retain_outputs((0,))
    return (y,)


def _rectify(x, y) -> None:
    np.maximum(x, 0, out=y)


def relu_backward(self, indexes, grad_outputs):
    """For ``ReLU``."""
    if not self._retained_output_data or not unwatched():
        return declined(WATCHED)
    (y,) = self._retained_output_data
    node = self.outputs[0]()
    if node is not None and node.data is not y:
        return declined("the output Variable has got another array")
    return gradients(_relu_gradient(y, grad_outputs[0].raw_array))


def relu_gradient(self, inputs):
    """For ``ReLUGrad2``."""
    return _relu_gradient(self.b, *inputs)


def _relu_gradient(y, gy):
    if not covered(gy, y) or gy.shape != y.shape:
        return declined(NOT_COVERED)
    loops = _loops(y)
    gx = np.empty_like(y)
    if loops and gy.strides != y.strides and is_channels_last(y):
        gy = channels_first(channels_last(gy))
    if loops and gy.strides == y.strides:
        loops.elementwise.relu_backward(y, gy, gx)
    else:
        steps.do(_gate, y, gy, gx)
    return (gx,)


def _gate(y, gy, gx) -> None:
    np.multiply(gy, y > 0, gx)


def add(self, inputs):
    """For ``Add``."""
    a, b = inputs
    loops = _loops(a)
    if not loops or not covered(a, b) or a.shape != b.shape or a.strides != b.strides:
        return declined(_NO_LOOPS)
    y = np.empty_like(a)
    loops.elementwise.total(a, b, y)
    return (y,)


def sums(self, inputs):
    """For ``Sum``, over all axes but the channels'."""
    (x,) = inputs
    if x.ndim < 2 or self.axis != (0, *range(2, x.ndim)) or self.keepdims:
        return declined("it is for sums over all axes but the channels'")
    return (channel_sums(x),) if _loops(x) else declined(_NO_LOOPS)


def channel_sums(x: np.ndarray) -> np.ndarray:
    """Sums over all axes but the channels', as the gradient by a bias does."""
    loops = _loops(x)
    if not loops or not is_channels_last(x):
        total = np.empty(x.shape[1], x.dtype)
        steps.do(np.sum, x, (0, *range(2, x.ndim)), None, total)
        return total
    return loops.batch_normalization.channel_sums(
        channels_last(x).reshape(-1, x.shape[1])
    )


def _loops(x):
    """Returns the compiled loops if they pay, for an array without gaps."""
    if x.size < _SMALL or not covered(x):
        return None
    if not x.flags.c_contiguous and not (x.ndim > 1 and is_channels_last(x)):
        return None
    return compiled.loops(x.dtype)
