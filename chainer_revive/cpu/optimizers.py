"""Update rules in pieces that stay in the cache, to the bit as in Chainer.

The public functions stand for methods of Chainer's and return ``NotImplemented`` for
what they do not cover.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from chainer.optimizer import UpdateRule

from chainer_revive.cpu import compiled
from chainer_revive.cpu.columns import buffer
from chainer_revive.cpu.layout import covered

_PIECE = 1 << 15  # elements


def update(self, param):
    """For ``UpdateRule``."""
    if (
        type(param.raw_array) is not np.ndarray
        or self._use_fp32_update
        or param._loss_scale is not None
        or param.layout is not None
        or getattr(self.update_core, "__func__", None) is not UpdateRule.update_core
    ):
        return NotImplemented
    if not self.enabled:
        return None
    self.t += 1
    if self._state is None or any(
        [type(value) is not np.ndarray for value in self._state.values()]
    ):
        self._init_states(param)
    self._hookable.call_hooks("pre", (self, param))
    self.update_core_cpu(param)
    self._hookable.call_hooks("post", (self, param))
    return None


def reallocate_cleared_grads(self):
    """For ``GradientMethod``: where nothing is cleared, it takes no names."""
    for param in self.target.params(False):
        if param._grad is None:
            return NotImplemented
    return None


def momentum_sgd(self, param):
    """For ``MomentumSGDRule``."""
    arrays = param.data, param.grad, self.state["v"]
    if not _covers(arrays):
        return NotImplemented
    hp = self.hyperparam
    if loops := compiled.loops(param.dtype):
        loops.momentum_sgd(*arrays, hp.lr, hp.momentum)
        return None
    for p, g, v, change in _pieces(arrays):
        np.multiply(hp.lr, g, out=change)
        v *= hp.momentum
        v -= change
        p += v
    return None


def adam(self, param):
    """For ``AdamRule``, the variants Adam and AdamW."""
    hp = self.hyperparam
    arrays = param.data, param.grad, self.state["m"], self.state["v"]
    if hp.amsgrad or hp.adabound or not _covers(arrays):
        return NotImplemented
    self._check_eps(param.dtype.type)
    keep = 1.0 - hp.eta * hp.weight_decay_rate
    alpha_t = self.alpha_t
    if loops := compiled.loops(param.dtype):
        rates = alpha_t, 1.0 - hp.beta1, 1.0 - hp.beta2, hp.eps, hp.eta, keep
        loops.adam(*arrays, *rates)
        return None
    for p, g, m, v, change in _pieces(arrays):
        np.subtract(g, m, out=change)
        change *= 1.0 - hp.beta1
        m += change
        np.multiply(g, g, out=change)
        change -= v
        change *= 1.0 - hp.beta2
        v += change
        np.sqrt(v, out=change)
        change += hp.eps
        np.divide(alpha_t, change, out=change)
        change *= m
        change *= -hp.eta
        if keep != 1:
            p *= keep
        p += change
    return None


def _covers(arrays) -> bool:
    data, grad, *_ = arrays
    return (
        grad is not None
        and covered(*arrays)
        and (data.size > _PIECE or compiled.loops(data.dtype))
        and all(a.flags.c_contiguous and a.shape == data.shape for a in arrays)
        and all(a.flags.writeable for a in arrays if a is not grad)
    )


def _pieces(arrays) -> Iterator[list[np.ndarray]]:
    """Yields matching pieces of the arrays, and memory of the same size."""
    flat = [a.reshape(-1) for a in arrays]
    memory = buffer("piece", (_PIECE,), flat[0].dtype)
    for start in range(0, len(flat[0]), _PIECE):
        views = [a[start : start + _PIECE] for a in flat]
        yield [*views, memory[: len(views[0])]]
