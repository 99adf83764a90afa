"""An optimizer's step as one loop over all parameters."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from chainer import Parameter
from chainer.optimizer import GradientMethod, Hyperparameter, UpdateRule
from chainer.optimizers.adam import AdamRule

from chainer_revive.cpu import compiled
from chainer_revive.cpu.adapters.optimizers import KINDS, are_numbers, is_variant
from chainer_revive.explain import declined
from chainer_revive.gradient_method import update_after_backward

_FLOAT32 = np.dtype(np.float32)
# What a user's optimizer may do in a step besides.
_STEPS = (
    "call_hooks",
    "check_nan_in_grads",
    "is_safe_to_update",
    "reallocate_cleared_grads",
    "update_loss_scale",
)


def update(self, lossfun=None, *args, **kwds):
    """For ``GradientMethod``."""
    if lossfun is not None:
        return update_after_backward(self, lossfun, args, kwds)
    step = step_of(self)
    if step is None:
        return declined(
            "it is for parameters and gradients that are float32 arrays of NumPy, all "
            "with the same rule, which has a compiled loop, without hooks and loss "
            "scaling"
        )
    loops = compiled.loops(_FLOAT32)
    getattr(loops.optimizers, step.loop)(step.tensors, step.rates())
    self.t += 1
    return None


def cleargrad(self):
    """For ``Parameter``."""
    if self._has_chainerx_array or type(self) is not Parameter:
        return declined("its array is of ChainerX, or it is of a subclass")
    self._grad = self._grad_var = None
    self._grad_valid = True
    if self._data[0] is None:
        self._grad_initializer = None
    return None


def _only_updates(optimizer) -> bool:
    """Tells whether a step does no more than to update parameters."""
    hookable = optimizer._hookable
    return not (
        hookable is None
        or hookable._pre_update_hooks
        or hookable._post_update_hooks
        or optimizer._loss_scale is not None
        or _has_steps_of_its_own(type(optimizer))
        or not optimizer.__dict__.keys().isdisjoint(_STEPS)
    )


def _has_steps_of_its_own(cls: type) -> bool:
    return any(
        getattr(cls, name) is not getattr(GradientMethod, name) for name in _STEPS
    )


class Step(NamedTuple):
    """An optimizer's step.

    Attributes:
        rules: The rule of each parameter.
        tensors: Parameter, gradient and states of each.
        hyperparams: Of each rule, those that count.
    """

    rules: list[UpdateRule]
    tensors: list[list[np.ndarray]]
    hyperparams: list[Hyperparameter]

    @property
    def loop(self) -> str:
        return KINDS[type(self.rules[0])].loop

    def rates(self) -> list[tuple[float, ...]]:
        """Counts the step, and returns the numbers that each rule takes it by."""
        rates, known = [], {}
        for rule, hp in zip(self.rules, self.hyperparams, strict=True):
            rule.t += 1
            key = hp, rule.t
            if key not in known:
                known[key] = KINDS[type(rule)].rates(rule, _FLOAT32)
            rates.append(known[key])
        return rates


def step_of(optimizer: GradientMethod) -> Step | None:
    """Returns its step, if that does no more than to update parameters as most are."""
    loops = compiled.loops(_FLOAT32)
    if not loops or not _only_updates(optimizer):
        return None
    rules, tensors = [], []
    for param in optimizer.target.params():
        rule, grad = param.update_rule, param._grad
        if grad is None:
            return None
        if param._grad_var is not None:
            grad = param._grad_var._data[0]
        if rule is None or not rule.enabled:
            continue
        kind = KINDS.get(type(rule))
        if kind is None or not _is_usual(param, rule):
            return None
        if rule._state is None:
            rule._init_states(param)
        arrays = [param._data[0], grad]
        for name in kind.states:
            arrays.append(rule._state[name])
        if not _fit(arrays):
            return None
        rules.append(rule)
        tensors.append(arrays)
    if not rules or len(set(rules)) < len(rules) or len(set(map(type, rules))) > 1:
        return None
    if overlap(tensors):
        return None
    given = [_that_differs(rule.hyperparam) for rule in rules]
    if not all([are_numbers(hp.get_dict().values()) for hp in set(given)]):
        return None
    return Step(rules, tensors, given)


def _that_differs(hp: Hyperparameter) -> Hyperparameter:
    """Returns those of the optimizer for a rule that has none of its own."""
    return hp if len(hp.__dict__) > 1 else hp._parent


def overlap(tensors) -> bool:
    """Tells whether parameters share memory, so that their order counts."""
    if are_apart([a for arrays in tensors for a in arrays]):
        return False
    address = compiled.loops(_FLOAT32).threads.address
    spans = sorted(
        (address(a), a.nbytes, i) for i, arrays in enumerate(tensors) for a in arrays
    )
    return any(
        at + size > following and i != j
        for (at, size, i), (following, _, j) in pairwise(spans)
    )


def are_apart(arrays) -> bool:
    """Tells whether each array has, or views alone, memory of its own."""
    owners = [a if a.flags.owndata else a.base for a in arrays]
    return len(set(map(id, owners))) == len(owners) and all(
        [type(a) is np.ndarray and a.flags.owndata for a in owners]
    )


def _is_usual(param, rule) -> bool:
    hookable, own = rule._hookable, rule.__dict__
    return not (
        type(param) is not Parameter
        or param._loss_scale is not None
        or param._layout is not None
        or hookable._pre_update_hooks
        or hookable._post_update_hooks
        or type(rule.hyperparam) is not Hyperparameter
        or rule._use_fp32_update
        or "update" in param.__dict__
        or "update" in own
        or "update_core" in own
        or "update_core_cpu" in own
        or (type(rule) is AdamRule and is_variant(rule.hyperparam))
    )


def _fit(arrays) -> bool:
    """Tells whether the loops take a parameter, its gradient and its states."""
    data, grad, *_ = arrays
    for a in arrays:
        if type(a) is not np.ndarray or a.dtype != _FLOAT32:
            return False
        flags = a.flags
        if (
            a.shape != data.shape
            or not flags.c_contiguous
            or not (flags.writeable or a is grad)
        ):
            return False
    return data.size > 0
