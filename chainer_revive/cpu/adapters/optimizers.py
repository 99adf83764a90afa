"""Update rules, bit-for-bit as in Chainer where rates are Python numbers.

The public functions stand for methods of Chainer's and return ``NotImplemented`` for
what they do not cover.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from chainer.optimizer import UpdateRule
from chainer.optimizers.adam import AdamRule
from chainer.optimizers.momentum_sgd import MomentumSGDRule

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
    return _step(self, param, KINDS[MomentumSGDRule])


def adam(self, param):
    """For ``AdamRule``, the variants Adam and AdamW."""
    if is_variant(self.hyperparam):
        return declined("it is for Adam and AdamW, not for AMSGrad and AdaBound")
    return _step(self, param, KINDS[AdamRule])


def is_variant(hp) -> bool:
    """Tells whether Adam is AMSGrad or AdaBound."""
    return hp.amsgrad or hp.adabound


class Kind(NamedTuple):
    """Update rules that differ in nothing but their numbers.

    Attributes:
        loop: The name of their loop.
        states: The names of their states.
        rates: Gives the numbers of a rule, for parameters of a dtype.
    """

    loop: str
    states: tuple[str, ...]
    rates: Callable[[UpdateRule, np.dtype], tuple[float, ...]]


def _rates_of_momentum_sgd(rule, dtype):
    hp = rule.hyperparam
    return hp.lr, hp.momentum


def _rates_of_adam(rule, dtype):
    rule._check_eps(dtype.type)
    hp = rule.hyperparam
    keep = 1.0 - hp.eta * hp.weight_decay_rate
    return rule.alpha_t, 1.0 - hp.beta1, 1.0 - hp.beta2, hp.eps, hp.eta, keep


KINDS = {
    MomentumSGDRule: Kind("momentum_sgd", ("v",), _rates_of_momentum_sgd),
    AdamRule: Kind("adam", ("m", "v"), _rates_of_adam),
}


def _step(rule, param, kind):
    grad = param.grad
    if grad is None:
        return None  # perhaps a parameter that has no array yet, nor a state
    arrays = param.data, grad, *[rule.state[name] for name in kind.states]
    if not covers(arrays):
        return declined(_NOT_COVERED)
    rates = kind.rates(rule, param.dtype)
    if not are_numbers(rates):
        return declined("each element has a rate of its own")
    step = getattr(compiled.fastest(param.dtype).optimizers, kind.loop)
    step([arrays], [rates])
    return None


def are_numbers(rates) -> bool:
    return all([type(rate) is float or np.ndim(rate) == 0 for rate in rates])


def covers(arrays) -> bool:
    """Tells whether a loop takes a parameter, its gradient and its states."""
    data, grad, *_ = arrays
    return (
        covered(*arrays)
        and (data.size > PIECE or compiled.loops(data.dtype))
        and all(a.flags.c_contiguous and a.shape == data.shape for a in arrays)
        and all(a.flags.writeable for a in arrays if a is not grad)
    )
