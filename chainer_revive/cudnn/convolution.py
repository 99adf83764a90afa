"""Convolution in two dimensions and its gradients.

The functions stand for methods of Chainer's, with one group of channels or more, and
return ``NotImplemented`` for what they or cuDNN do not cover. Kernels stay as Chainer
has them, channels first: cuDNN rearranges them by itself.
"""

from __future__ import annotations

from chainer.utils.conv import get_conv_outsize

from chainer_revive.cudnn import executor
from chainer_revive.cudnn.coverage import covered
from chainer_revive.cudnn.layout import Tensor, channels_last, empty, last
from chainer_revive.cudnn.operations import operation


def forward(self, inputs):
    """For ``Convolution2DFunction``."""
    x, W, *bias = inputs
    if self.cover_all or self.cudnn_fast or not _covers(self, x, W):
        return NotImplemented
    (n, _, h, w), (out_c, _, kh, kw) = x.shape, W.shape
    out_h = get_conv_outsize(h, kh, self.sy, self.ph, d=self.dy)
    out_w = get_conv_outsize(w, kw, self.sx, self.pw, d=self.dx)
    if out_h <= 0 or out_w <= 0:
        return NotImplemented  # Chainer has the message.
    y = _compute(self, "convolution", (x, W), (n, out_c, out_h, out_w))
    return y if y is NotImplemented else _finish(self, y, bias)


def gradient_w(self, inputs):
    """For ``Convolution2DGradW``."""
    x, gy = inputs
    if self.cover_all or x.dtype != self.W_dtype or not _covers(self, x, gy):
        return NotImplemented
    xp = executor.current().xp
    gW = Tensor.contiguous(x.dtype, tuple(self.W_shape))
    run = _prepare(self, "convolution by W", (_image(x), _image(gy)), gW)
    if run is None:
        return NotImplemented
    result = xp.empty(gW.shape, gW.dtype)
    run([channels_last(xp, x), channels_last(xp, gy)], [result])
    self.retain_inputs((0, 1))
    return (result,)


def transposed(self, inputs):
    """For ``Deconvolution2DFunction``, which is also the gradient by x."""
    x, W, *bias = inputs
    if not _covers(self, x, W):
        return NotImplemented
    self._calc_out_size(x.shape, W.shape)
    self._set_cover_all(x.shape, W.shape)
    if self.cover_all:
        return NotImplemented
    shape = len(x), W.shape[1] * self.groups, self.outh, self.outw
    y = _compute(self, "convolution by x", (x, W), shape)
    return y if y is NotImplemented else _finish(self, y, bias)


def _covers(self, *arrays) -> bool:
    return covered(executor.current().xp, *arrays) and not any(self.input_layouts)


def _compute(self, kind: str, inputs, shape: tuple[int, int, int, int]):
    xp = executor.current().xp
    x, W = inputs
    y = Tensor.channels_last(x.dtype, shape)
    tensors = _image(x), Tensor.contiguous(W.dtype, W.shape)
    run = _prepare(self, kind, tensors, y)
    if run is None:
        return NotImplemented
    result = empty(xp, y)
    run([channels_last(xp, x), xp.ascontiguousarray(W)], [result])
    return result


def _prepare(self, kind: str, inputs: tuple[Tensor, ...], output: Tensor):
    return executor.current().prepare(
        operation(
            kind,
            inputs,
            [output],
            padding=(self.ph, self.pw),
            stride=(self.sy, self.sx),
            dilation=(self.dy, self.dx),
        )
    )


def _image(x) -> Tensor:
    return Tensor.channels_last(x.dtype, x.shape)


def _finish(self, y, bias):
    for b in bias:
        rows = last(y)
        rows += b
    self.retain_inputs((0, 1))
    return (y,)
