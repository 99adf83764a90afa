"""Batch normalisation of images, one mean and variance a channel."""

from __future__ import annotations

import numpy as np
from chainer.functions.normalization import batch_normalization as chainers_bn
from chainer.functions.normalization.batch_normalization import (
    GeneralBatchNormalizationImpl,
)

from chainer_revive.cudnn import executor
from chainer_revive.cudnn.coverage import covered
from chainer_revive.cudnn.layout import (
    Tensor,
    channels_last,
    empty,
    first,
    last,
)
from chainer_revive.cudnn.operations import SCALAR, operation

_AXES = (0, 2, 3)
_FLOAT32 = np.dtype(np.float32)


def choose(self, inputs):
    """Lets Chainer's ``BatchNormalization`` go on with cuDNN where it can."""
    x, gamma, _ = inputs
    if (
        # Another selector computes statistics over several processes.
        self._impl_selector is chainers_bn._impl_selector
        and _covers(self, x, gamma)
        and x.size > gamma.size
    ):
        self._impl_selector = lambda *_: CudnnBatchNormalizationImpl()
    return NotImplemented


def fixed(self, inputs):
    """For ``FixedBatchNormalization``; for this alone, cuDNN has no engine."""
    x, gamma, beta, mean, var = inputs
    if not _covers(self, x, gamma):
        return NotImplemented
    xp = executor.current().xp
    self.retain_inputs((0, 1, 3, 4))
    self.axis, self.key_axis = _AXES, (1,)
    self.expander = (None, slice(None), None, None)
    self.inv_var = xp.reciprocal(var + self.eps)
    self.inv_std = xp.sqrt(self.inv_var, dtype=self.inv_var.dtype)
    y = chainers_bn._apply_bn_fwd(xp, last(x), mean, self.inv_std, gamma, beta)
    return (first(y),)


class CudnnBatchNormalizationImpl(GeneralBatchNormalizationImpl):
    """Batch statistics by cuDNN; what it refuses is computed by Chainer."""

    def forward(
        self,
        axis,
        gamma,
        x,
        x_layout,
        xp,
        expander,
        beta,
        eps,
        decay,
        running_mean,
        running_var,
    ):
        image, channels = _describe(x)
        run = executor.current().prepare(
            operation(
                "batch normalization",
                [image, *[channels] * 4, SCALAR, SCALAR],
                [image, *[channels] * 4],
            )
        )
        if run is None:
            return super().forward(
                axis,
                gamma,
                x,
                x_layout,
                xp,
                expander,
                beta,
                eps,
                decay,
                running_mean,
                running_var,
            )
        if running_mean is None:
            running = xp.zeros((2, len(gamma)), _FLOAT32)
        else:
            running = _single(xp, running_mean), _single(xp, running_var)
        y = empty(xp, image)
        mean, inv_std = xp.empty_like(running[0]), xp.empty_like(running[0])
        run(
            [
                channels_last(xp, x),
                _single(xp, gamma),
                _single(xp, beta),
                *running,
                float(eps),
                1 - float(decay),
            ],
            [y, mean, inv_std, *running],
        )
        if running_mean is not None:
            for given, new in zip((running_mean, running_var), running, strict=True):
                if new is not given:
                    given[...] = new
        dtype = np.promote_types(x.dtype, gamma.dtype)
        mean, inv_std = (
            mean.astype(dtype, copy=False),
            inv_std.astype(dtype, copy=False),
        )
        return y, x_layout, running_mean, running_var, mean, None, inv_std, None

    def backward(
        self,
        axis,
        gamma,
        gy,
        x,
        x_layout,
        xp,
        expander,
        mean,
        inv_std,
        eps,
        var,
        forward_data,
    ):
        image, channels = _describe(x)
        run = executor.current().prepare(
            operation(
                "batch normalization by x",
                [image, image, *[channels] * 3],
                [image, channels, channels],
            )
        )
        if run is None:
            return super().backward(
                axis,
                gamma,
                gy,
                x,
                x_layout,
                xp,
                expander,
                mean,
                inv_std,
                eps,
                var,
                forward_data,
            )
        gx = empty(xp, image)
        ggamma, gbeta = xp.empty((2, len(gamma)), _FLOAT32)
        run(
            [
                channels_last(xp, gy),
                channels_last(xp, x),
                *(_single(xp, values) for values in (gamma, mean, inv_std)),
            ],
            [gx, ggamma, gbeta],
        )
        ggamma, gbeta = (g.astype(gamma.dtype, copy=False) for g in (ggamma, gbeta))
        return gx, x_layout, ggamma, gbeta


def _covers(self, x, gamma) -> bool:
    return (
        x.ndim == 4
        and gamma.ndim == 1
        and chainers_bn._compute_axis(x.ndim, gamma.ndim, self.axis) == _AXES
        and not any(self.input_layouts)
        and covered(executor.current().xp, x)
        and gamma.dtype in (x.dtype, _FLOAT32)
    )


def _describe(x) -> tuple[Tensor, Tensor]:
    """Describes an image and a float32 value for each of its channels."""
    return Tensor.channels_last(x.dtype, x.shape), Tensor.per_channel(x.shape[1])


def _single(xp, values):
    """Returns float32 values in one piece, the same array if they are."""
    return xp.ascontiguousarray(values.astype(_FLOAT32, copy=False))
