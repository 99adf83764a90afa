"""The optimizer steps that one kernel can take, and its data for each parameter.

The public functions stand for methods of Chainer's and return ``NotImplemented`` for
what they do not cover.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import chainer
import numpy as np
from chainer.optimizer_hooks import GradientClipping, WeightDecay
from chainer.optimizers.adam import AdamRule
from chainer.optimizers.momentum_sgd import MomentumSGDRule
from chainer.optimizers.nesterov_ag import NesterovAGRule

from chainer_revive import registry
from chainer_revive.cuda import current, kernels
from chainer_revive.cuda.tensor import Tensor
from chainer_revive.explain import declined
from chainer_revive.gradient_method import update_after_backward


@dataclasses.dataclass(frozen=True)
class Rule:
    """The data of an update rule that the kernel needs.

    Attributes:
        states: Names of one or two states.
        rates: Returns up to six numbers for ``t.rates``, from an update rule.
    """

    states: tuple[str, ...]
    rates: Callable[[Any], tuple[float, ...]]


def add_rule(rule_class: type, rule: Rule, source: str) -> None:
    """Adds an update rule to those covered.

    Args:
        rule_class (type): A subclass of Chainer's ``UpdateRule``.
        rule (Rule): What the kernel has to know of it.
        source (str): CUDA of one element's step, as in ``kernels.RULES``.
    """
    kernels.RULES[rule_class.__name__] = source
    _RULES[rule_class] = rule


def _rates_of_momentum(rule) -> tuple[float, ...]:
    return rule.hyperparam.lr, rule.hyperparam.momentum


def _rates_of_adam(rule) -> tuple[float, ...]:
    hp = rule.hyperparam
    rule._check_eps(np.float32)
    rates = rule.alpha_t, 1 - hp.beta1, 1 - hp.beta2
    return *rates, hp.eps, hp.eta, hp.weight_decay_rate


_RULES = {
    MomentumSGDRule: Rule(("v",), _rates_of_momentum),
    NesterovAGRule: Rule(("v",), _rates_of_momentum),
    AdamRule: Rule(("m", "v"), _rates_of_adam),
}


def update(self, lossfun=None, *args, **kwds):
    """For ``GradientMethod``."""
    if lossfun is not None:
        return update_after_backward(self, lossfun, args, kwds)
    hooks = _hooks(self)
    params = list(self.target.params())
    updated = [p for p in params if p.update_rule and p.update_rule.enabled]
    if hooks is None or not _cover(hooks, params, updated):
        return declined(
            "a hook, an update rule, a dtype or a device is not one of those covered"
        )
    self.reallocate_cleared_grads()
    self.check_nan_in_grads()
    self.t += 1
    if self.is_safe_to_update():
        with chainer.using_device(params[0].device):
            _step(hooks, params, updated)
    self.update_loss_scale()
    return None


def check_nan_in_grads(self):
    """For ``Optimizer``: Chainer waits for the GPU once for each parameter."""
    if not self._loss_scaling_is_dynamic:
        return declined("the loss scale is constant")
    named = list(self.target.namedparams())
    grads = [p.grad for _, p in named]
    if not all(map(_covers_grad, grads)) or len({p.device for _, p in named}) > 1:
        return declined("a gradient is missing, or of another dtype or device")
    with chainer.using_device(named[0][1].device):
        finite = current.launcher.finite(grads)
    self._loss_scaling_isnan = not all(finite)
    self._loss_scaling_isnan_ever |= self._loss_scaling_isnan
    for (name, _), is_finite in zip(named, finite, strict=True):
        if not is_finite:
            warnings.warn(
                f"Non finite number found in param.grad of {name} (iteration: "
                f"{self.t}, loss_scale: {self._loss_scale})",
                stacklevel=2,
            )
    return None


def _hooks(optimizer) -> list | None:
    """Returns the hooks, each at most once, or ``None`` if there are others."""
    hookable = optimizer._hookable
    hooks = list(hookable._pre_update_hooks.values())
    kinds = [type(hook) for hook in hooks]
    known = set(kinds) <= {WeightDecay, GradientClipping}
    if hookable._post_update_hooks or not known or len(set(kinds)) < len(kinds):
        return None
    return hooks


def _cover(hooks, params, updated) -> bool:
    ours = all(
        type(p) is chainer.Parameter
        and type(p.array) is current.launcher.array_type
        and _dense(p.array)
        for p in params
    )
    unique = len({id(p) for p in params}) == len(params)
    if not (ours and unique and updated and len({p.device for p in params}) == 1):
        return False
    masters = {id(p) for p in updated if p.update_rule._use_fp32_update}
    return (
        len({type(p.update_rule) for p in updated}) == 1
        and all(_covers_rule(p.update_rule) for p in updated)
        and all(
            p.dtype == np.float32 or (p.dtype == np.float16 and id(p) in masters)
            for p in (params if _clips(hooks) else updated)
        )
    )


def _covers_rule(rule) -> bool:
    hooks, hp = rule._hookable, rule.hyperparam
    if type(rule) not in _RULES or hooks._pre_update_hooks or hooks._post_update_hooks:
        return False
    if registry.is_left_off(f"cuda/optimizers:{type(rule).__name__}"):
        return False
    return type(rule) is not AdamRule or not (hp.amsgrad or hp.adabound)


def _covers_grad(grad) -> bool:
    is_ours = type(grad) is current.launcher.array_type
    return is_ours and grad.dtype in (np.float16, np.float32) and _dense(grad)


def _clips(hooks) -> bool:
    return any(type(hook) is GradientClipping for hook in hooks)


def _dense(array) -> bool:
    """Tells whether the elements fill a piece of memory, in any order of the axes."""
    if array.flags.c_contiguous:
        return True
    axes = sorted(range(array.ndim), key=lambda k: array.strides[k], reverse=True)
    return array.transpose(axes).flags.c_contiguous


def _step(hooks, params, updated) -> None:
    clips = _clips(hooks)
    decay = sum(hook.rate for hook in hooks if type(hook) is WeightDecay)
    is_after = clips and type(hooks[0]) is GradientClipping
    tensors = {}
    for param in params if clips else updated:
        scale = 1.0 if param._loss_scale is None else param._loss_scale
        tensor = Tensor(param.array, param.grad, loss_scale=scale)
        if is_after:
            tensor.after = decay * scale
        else:
            tensor.before = decay * scale
        tensors[id(param)] = tensor
    for param in updated:
        _prepare(tensors[id(param)], param, param.update_rule)
    for tensor in tensors.values():
        tensor.grad = _like(tensor.grad, tensor.param)
    clip = None
    if clips:
        (threshold,) = (h.threshold for h in hooks if type(h) is GradientClipping)
        clip = current.launcher.clip(list(tensors.values()), threshold)
    rule = type(updated[0].update_rule).__name__
    current.launcher.update(rule, [tensors[id(param)] for param in updated], clip)


def _prepare(tensor: Tensor, param, rule) -> None:
    """Adds the master copy, the state and the hyperparameters of a parameter."""
    rule.t += 1
    master = param
    if param.dtype == np.float16:
        if rule._fp32_param is None:
            array = param.array.astype(np.float32)
            rule._fp32_param = chainer.Parameter(array, name=param.name)
        master = rule._fp32_param
        master.array = _like(master.array, param.array)
        tensor.half, tensor.param = param.array, master.array
    names = _RULES[type(rule)].states
    if any(
        type((rule.state or {}).get(k)) is not current.launcher.array_type
        for k in names
    ):
        rule._init_states(master)
    for name in names:
        rule.state[name] = _like(rule.state[name], tensor.param, np.float32)
    tensor.states = tuple(rule.state[name] for name in names)
    tensor.rates = _RULES[type(rule)].rates(rule)


def _like(array, other, dtype=None):
    """Returns an array with the strides of another one, copied only if need be."""
    dtype = array.dtype if dtype is None else np.dtype(dtype)
    if array.dtype == dtype:
        alike = array.dtype == other.dtype and array.strides == other.strides
        if alike or _order(array) == _order(other):
            return array
    copy = chainer.backend.get_array_module(other).empty_like(other, dtype=dtype)
    copy[...] = array
    return copy


def _order(array) -> list[int]:
    return [
        stride // array.itemsize
        for stride, length in zip(array.strides, array.shape, strict=True)
        if length > 1
    ]
