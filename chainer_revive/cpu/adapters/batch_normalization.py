"""Batch normalisation over all axes but the channels'.

The public functions stand for methods of Chainer's and return ``NotImplemented`` for
what they do not cover.
"""

from __future__ import annotations

import functools

import numpy as np
from chainer.backends import intel64
from chainer.functions.normalization.batch_normalization import (
    BatchNormalization,
    GeneralBatchNormalizationImpl,
    _impl_selector,
)

from chainer_revive.cpu import compiled, deferred, steps
from chainer_revive.cpu.function_node import WATCHED, gradients, unwatched
from chainer_revive.cpu.gated import Gated
from chainer_revive.cpu.layout import (
    NOT_COVERED,
    channels_first,
    channels_last,
    covered,
    is_channels_last,
)
from chainer_revive.explain import declined
from chainer_revive.registry import is_own

_SMALL = 1 << 15  # elements for which Chainer is as fast
_PIXELS = 64  # of an image with channels first that is worth its transposition
_NOT_COVERED = (
    "it is for one mean a channel (axis 1) of NumPy arrays of one dtype, float32 or "
    f"float64; without compiled loops, of {_SMALL} elements or more, with few "
    "pixels or channels last"
)


def train(self, inputs):
    """For ``BatchNormalization``, where it chooses the implementation below."""
    x, gamma, beta = inputs
    axis, key_axis, expander = _axes(x.ndim)
    if (
        type(self) is not BatchNormalization
        or not type(x) is type(gamma) is type(beta) is np.ndarray
        or not gamma.ndim == 1 < x.ndim
        or self._impl_selector is not _impl_selector
        or self.axis not in (None, axis)
        or self.input_layouts != (None, None, None)
        or x.size == gamma.size  # Chainer has a warning
        or intel64.is_ideep_available()
    ):
        return declined(
            "it is for means of NumPy arrays over all axes but 1, of more than one "
            "number each, by the implementation of Chainer's choice"
        )
    self.retain_inputs((0, 1))
    self.axis, self.key_axis, self.expander = axis, key_axis, expander
    self._impl = impl = GeneralBatchNormalizationImpl()
    y, _, self.running_mean, self.running_var, *moments, _ = impl.forward(
        *(axis, gamma, x, None, np, expander, beta, self.eps, self.decay),
        *(self.running_mean, self.running_var),
    )
    self.mean, self.var, self.inv_std = moments
    return (y,)


@functools.cache
def _axes(ndim: int) -> tuple[tuple, tuple, tuple]:
    """Returns the axes of a mean, the other one, and how to index by that."""
    axis = (0, *range(2, ndim))
    return axis, (1,), (None, slice(None), *[None] * (ndim - 2))


def gradient(self, indexes, grad_outputs):
    """For ``BatchNormalization``."""
    if type(self) is not BatchNormalization or not unwatched():
        return declined(WATCHED)
    x, gamma = self.inputs[0].data, self.inputs[1].data
    gate = grad_outputs[0]._data
    if type(gate) is Gated and _can_gate(self, gamma, x, gate.y):
        return gradients(_backward_through(gate, x, gamma, self.mean, self.inv_std))
    gy = grad_outputs[0].raw_array
    if not type(x) is type(gamma) is type(gy) is np.ndarray or (
        type(self._impl) is not GeneralBatchNormalizationImpl
    ):
        return declined("it is for NumPy arrays, by Chainer's general implementation")
    gx, _, ggamma, gbeta = self._impl.backward(
        *(self.axis, gamma, gy, x, None, np, self.expander),
        *(self.mean, self.inv_std, self.eps, None, None),
    )
    return gradients((gx, ggamma, gbeta))


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
    """For ``GeneralBatchNormalizationImpl``."""
    if not _covers(self, axis, gamma, x, beta) or np.ndim(eps):
        return declined(_NOT_COVERED)
    images, c = channels_last(x), len(gamma)
    rows = images.reshape(-1, c)
    loops = compiled.loops(x.dtype)
    if loops and deferred.may_wait():
        tracked = _can_track(running_mean, running_var, gamma, decay)
        running = ((running_mean, running_var), decay) if tracked else ()
        mean, var, inv_std, values = loops.batch_normalization.statistics(
            rows, gamma, beta, eps, *running
        )
        deferred.leave(values)
        y = x  # in its place
    else:
        tracked = False
        y = np.empty_like(images)
        mean, var, inv_std = compiled.fastest(x.dtype).batch_normalization.forward(
            rows, gamma, beta, eps, y.reshape(-1, c)
        )
        y = channels_first(y)
    if running_mean is not None and not tracked:
        adjust = len(rows) / max(len(rows) - 1.0, 1.0)  # unbiased estimation
        running_mean = _track(running_mean, decay, 1 - decay, mean)
        running_var = _track(running_var, decay, (1 - decay) * adjust, var)
    return y, x_layout, running_mean, running_var, mean, var, inv_std, None


def _track(running, decay, rate, value):
    """Returns a running average, which is an array, or a number at first."""
    if isinstance(running, np.ndarray):
        steps.do(_update, running, decay, rate, value)
        return running
    return running * decay + rate * value


def _update(running, decay, rate, value) -> None:
    running *= decay
    running += rate * value


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
    """For ``GeneralBatchNormalizationImpl``."""
    if not _covers(self, axis, gamma, x, gy):
        return declined(_NOT_COVERED)
    x, gy = channels_last(x), channels_last(gy)
    gx = np.empty_like(x)
    ggamma, gbeta = compiled.fastest(x.dtype).batch_normalization.backward(
        _rows(x), _rows(gy), gamma, mean, inv_std, _rows(gx)
    )
    return channels_first(gx), x_layout, ggamma, gbeta


def _can_gate(self, gamma, x, y) -> bool:
    """Tells whether the loops can do the gradient of ReLU meanwhile."""
    impl = type(self._impl)
    return is_own(impl.backward) and _covers(self._impl, self.axis, gamma, x, y)


def _backward_through(gate: Gated, x, gamma, mean, inv_std) -> tuple:
    """Returns the gradients by x, gamma and beta."""
    y, (gy, gated) = gate.y, gate.arrays()
    gx = np.empty_like(gated) if gate.shared else gated
    x, gy, *places = [_rows(channels_last(a)) for a in (x, gy, gx, y, gated)]
    ggamma, gbeta = compiled.loops(y.dtype).batch_normalization.backward(
        x, gy, gamma, mean, inv_std, *places
    )
    gate.set(gated)
    return gx, ggamma, gbeta


def _rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(-1, images.shape[-1])


def apply(xp, x, mean, inv_std, gamma, beta):
    """For ``_apply_bn_fwd``, which normalises with given statistics."""
    if not covered(x, mean, inv_std, gamma, beta):
        return declined(NOT_COVERED)
    loops = compiled.loops(x.dtype)
    if (
        loops
        and mean.ndim == x.ndim
        and mean.shape[1] == mean.size == x.shape[1]
        and is_channels_last(x)
    ):
        c = mean.size
        x = channels_last(x)
        y = np.empty_like(x)
        values = mean.reshape(c), (inv_std * gamma).reshape(c), beta.reshape(c)
        loops.batch_normalization.apply(x.reshape(-1, c), *values, y.reshape(-1, c))
        return channels_first(y)
    y = x - mean
    y *= inv_std * gamma
    y += beta
    return y


def _covers(self, axis, gamma, x, other) -> bool:
    return (
        # A subclass computes its statistics over several processes.
        type(self) is GeneralBatchNormalizationImpl
        and is_own(
            GeneralBatchNormalizationImpl.get_mean_and_var,
            GeneralBatchNormalizationImpl.get_ggamma_and_gbeta,
        )
        and covered(x, gamma, other)
        and gamma.shape == x.shape[1:2]
        and other.shape in (x.shape, gamma.shape)
        and axis == (0, *range(2, x.ndim))
        and (compiled.loops(x.dtype) or _pays(x))
    )


def _can_track(mean, var, gamma, decay) -> bool:
    """Tells whether a loop can update running averages."""
    for a in (mean, var):
        if (
            type(a) is not np.ndarray
            or a.dtype != gamma.dtype
            or a.shape != gamma.shape
        ):
            return False
        if not (a.flags.c_contiguous and a.flags.writeable):
            return False
    return type(decay) is float


def _pays(x) -> bool:
    """Tells whether NumPy gains anything on Chainer."""
    pixels = x.size // (x.shape[0] * x.shape[1])
    return x.size >= _SMALL and (pixels <= _PIXELS or is_channels_last(x))
