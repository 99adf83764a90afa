"""Small Linear layers, as at the end of a convolutional network, in compiled loops.

For them, BLAS would start threads that then wait for more by spinning, and take
processors from ours. Large ones are faster in BLAS. The public functions stand for
methods of Chainer's and return ``NotImplemented`` for what they do not cover.
"""

from __future__ import annotations

import chainer
import numpy as np

from chainer_revive.cpu import compiled, steps
from chainer_revive.cpu.axis import Axis
from chainer_revive.cpu.function_node import WATCHED, gradients, settings, unwatched
from chainer_revive.cpu.layout import NOT_COVERED, covered
from chainer_revive.explain import declined

# Multiplications: with fewer BLAS starts no threads, with more it is faster.
_FEW, _MANY = 1 << 15, 1 << 22
# Examples are images of one pixel.
_ONE = Axis.each(1), Axis.each(1)
_NO_LOOPS = (
    f"BLAS is as fast outside of {_FEW} to {_MANY} multiplications, and compiled loops "
    "need Numba and float32 matrices that fit each other"
)


def forward(self, inputs):
    """For ``LinearFunction``."""
    x, W, *b = inputs
    if not covered(*inputs) or x.shape[1] != W.shape[1]:
        return declined(NOT_COVERED)
    own, common = settings()
    if own.get("schedule_func", common.schedule_func):
        return declined("a static graph records what Chainer's own code calls")
    self._config_use_ideep = own.get("use_ideep", common.use_ideep)
    self.retain_inputs((0, 1))
    loops = _loops(x.size * len(W), x, W)
    if loops:
        y = loops.convolution.correlate(_as_images(x), W.T[None, None], _ONE, *b)
        return (y.reshape(len(x), -1),)
    y = _dot(x, W.T)
    if b:
        steps.do(np.add, y, b[0], y)
    return (y,)


def backward(self, indexes, grad_outputs):
    """For ``LinearFunction``."""
    x, W = (node.data for node in self.inputs[:2])
    gy = grad_outputs[0].raw_array
    if not unwatched():
        return declined(WATCHED)
    if not covered(x, W, gy) or gy.shape != (len(x), len(W)):
        return declined(NOT_COVERED)
    arrays = []
    if 0 in indexes:
        gx = _gradient_x(W, gy)
        arrays.append(_dot(gy, W) if gx is NotImplemented else gx)
    if 1 in indexes:
        gW = _gradient_w(x, gy)
        arrays.append(_dot(gy.T, x) if gW is NotImplemented else gW)
    if 2 in indexes:
        total = np.empty(len(W), gy.dtype)
        steps.do(np.sum, gy, 0, None, total)
        arrays.append(total)
    return gradients(arrays)


def gradient_x(self, inputs):
    """For ``LinearGradData``."""
    gx = _gradient_x(*inputs)
    if gx is NotImplemented:
        return gx
    self._config_use_ideep = chainer.config.use_ideep
    self.retain_inputs((0, 1))
    return (gx,)


def gradient_w(self, inputs):
    """For ``LinearGradWeight``."""
    x, gy = inputs
    if self._w_dtype != x.dtype:
        return declined(NOT_COVERED)
    gW = _gradient_w(x, gy)
    if gW is NotImplemented:
        return gW
    self._config_use_ideep = chainer.config.use_ideep
    self.retain_inputs((0, 1))
    return (gW,)


def _gradient_x(W, gy):
    loops = _loops(gy.size * W.shape[1], W, gy)
    if not loops or gy.shape[1] != len(W):
        return declined(_NO_LOOPS)
    gx = loops.convolution.correlate(_as_images(gy), W[None, None], _ONE)
    return gx.reshape(len(gy), -1)


def _gradient_w(x, gy):
    loops = _loops(gy.size * x.shape[1], x, gy)
    if not loops or len(x) != len(gy):
        return declined(_NO_LOOPS)
    gW = loops.convolution.correlate_outputs(_as_images(x), _as_images(gy), _ONE)
    return gW.reshape(gy.shape[1], -1)


def _dot(a, b):
    y = np.empty((len(a), b.shape[1]), a.dtype)
    steps.do(np.dot, a, b, y)
    return y


def _loops(work: int, *arrays):
    if not _FEW <= work <= _MANY or not covered(*arrays):
        return None
    return compiled.loops(arrays[0].dtype)


def _as_images(x: np.ndarray) -> np.ndarray:
    return steps.contiguous(x)[:, None, None]
