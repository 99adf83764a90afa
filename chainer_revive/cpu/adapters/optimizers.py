"""Update rules, bit-for-bit as in Chainer where rates are Python numbers.

The public functions stand for methods of Chainer's and return ``NotImplemented`` for
what they do not cover.
"""

from __future__ import annotations

import numpy as np
from chainer.optimizer import UpdateRule

from chainer_revive.cpu import compiled
from chainer_revive.cpu.layout import covered
from chainer_revive.cpu.numpy.optimizers import PIECE
from chainer_revive.explain import declined

_NOT_COVERED = (
    "it is for NumPy arrays of one dtype, float32 or float64, without gaps; without "
    f"compiled loops, of more than {PIECE} elements"
)


def update(self, param):
    """For ``UpdateRule``."""
    if (
        type(param.raw_array) is not np.ndarray
        or self._use_fp32_update
        or param._loss_scale is not None
        or param.layout is not None
        or getattr(self.update_core, "__func__", None) is not UpdateRule.update_core
    ):
        return declined(
            "it is for NumPy arrays, without a loss scale, a float32 copy or a layout, "
            "and for rules with update_core_cpu"
        )
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
            return declined("a gradient has been cleared")
    return None


def momentum_sgd(self, param):
    """For ``MomentumSGDRule``."""
    grad = param.grad
    if grad is None:
        return None  # perhaps a parameter that has no array yet, nor a state
    arrays = param.data, grad, self.state["v"]
    if not _covers(arrays):
        return declined(_NOT_COVERED)
    hp = self.hyperparam
    compiled.fastest(param.dtype).optimizers.momentum_sgd(*arrays, hp.lr, hp.momentum)
    return None


def adam(self, param):
    """For ``AdamRule``, the variants Adam and AdamW."""
    grad = param.grad
    if grad is None:
        return None
    hp = self.hyperparam
    arrays = param.data, grad, self.state["m"], self.state["v"]
    if hp.amsgrad or hp.adabound:
        return declined("it is for Adam and AdamW, not for AMSGrad and AdaBound")
    if not _covers(arrays):
        return declined(_NOT_COVERED)
    self._check_eps(param.dtype.type)
    keep = 1.0 - hp.eta * hp.weight_decay_rate
    rates = self.alpha_t, 1.0 - hp.beta1, 1.0 - hp.beta2, hp.eps, hp.eta, keep
    compiled.fastest(param.dtype).optimizers.adam(*arrays, *rates)
    return None


def _covers(arrays) -> bool:
    data, grad, *_ = arrays
    return (
        covered(*arrays)
        and (data.size > PIECE or compiled.loops(data.dtype))
        and all(a.flags.c_contiguous and a.shape == data.shape for a in arrays)
        and all(a.flags.writeable for a in arrays if a is not grad)
    )
