"""The table of the methods of Chainer that are replaced, by layers of functions.

A function in a layer replaces Chainer's method in its row, and takes the same
arguments. If it returns ``NotImplemented``, the call goes to the layer below, and at
last to Chainer's own code. The layers are composed when one is switched on or off, so a
call need not check which of them are on.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import NamedTuple

from chainer_revive.either import either

# Each lies over those before it: where its functions are.
LAYERS = {
    "cpu": "chainer_revive.cpu.adapters",
    "cuda": "chainer_revive.cuda",
    "capture": "chainer_revive.cuda",  # while a CUDA graph is captured
    "cudnn": "chainer_revive.cudnn",
}

_F = "chainer.functions"
_CONVOLUTION = f"{_F}.connection.convolution_2d"
_DECONVOLUTION = f"{_F}.connection.deconvolution_2d:Deconvolution2DFunction"
_LINEAR = f"{_F}.connection.linear"
_BN = f"{_F}.normalization.batch_normalization"
_MAX_POOLING = f"{_F}.pooling.max_pooling_nd"
_AVERAGE_POOLING = f"{_F}.pooling.average_pooling_2d"
_RELU = f"{_F}.activation.relu"
_CROSS_ENTROPY = f"{_F}.loss.softmax_cross_entropy:SoftmaxCrossEntropy"

# A method of Chainer's, and what the layers have for it.
TABLE: dict[str, dict[str, str]] = {
    # What Chainer does around each function
    "chainer.function_node:FunctionNode.apply": {"cpu": "function_node:apply"},
    "chainer.backend:get_device_from_array": {"cpu": "function_node:device_of"},
    "chainer.variable:Variable.backward": {"cpu": "backprop:backward"},
    "chainer.variable:Parameter.cleargrad": {"cpu": "all_parameters:cleargrad"},
    "chainer._backprop:_backprop_to_all": {"cpu": "backprop:to_all"},
    "chainer.variable:_check_grad_type": {"cpu": "function_node:check_grad_type"},
    # Convolution
    f"{_CONVOLUTION}:Convolution2DFunction.forward_gpu": {
        "cudnn": "convolution:forward"
    },
    f"{_CONVOLUTION}:Convolution2DFunction._forward_cpu_core": {
        "cpu": "convolution:forward"
    },
    f"{_CONVOLUTION}:Convolution2DFunction._forward_grouped_convolution": {
        "cpu": "convolution:forward"
    },
    f"{_CONVOLUTION}:Convolution2DFunction.backward": {"cpu": "convolution:backward"},
    f"{_CONVOLUTION}:Convolution2DGradW.forward_gpu": {
        "cudnn": "convolution:gradient_w"
    },
    f"{_CONVOLUTION}:Convolution2DGradW._forward_cpu_core": {
        "cpu": "convolution:gradient_w"
    },
    f"{_CONVOLUTION}:Convolution2DGradW._forward_grouped_convolution": {
        "cpu": "convolution:gradient_w"
    },
    f"{_DECONVOLUTION}.forward_gpu": {"cudnn": "convolution:transposed"},
    f"{_DECONVOLUTION}._forward_cpu_core": {"cpu": "convolution:transposed"},
    f"{_DECONVOLUTION}._forward_grouped_convolution": {"cpu": "convolution:transposed"},
    # Linear
    f"{_LINEAR}:LinearFunction.forward": {
        "cpu": "linear:forward",
        "capture": "linear:forward",
    },
    f"{_LINEAR}:LinearFunction.backward": {"cpu": "linear:backward"},
    f"{_LINEAR}:LinearGradData.forward": {
        "cpu": "linear:gradient_x",
        "capture": "linear:gradient_x",
    },
    f"{_LINEAR}:LinearGradWeight.forward": {
        "cpu": "linear:gradient_w",
        "capture": "linear:gradient_w",
    },
    # Batch normalisation
    f"{_BN}:BatchNormalization.forward": {
        "cpu": "batch_normalization:train",
        "cudnn": "batch_normalization:choose",
    },
    f"{_BN}:BatchNormalization.backward": {"cpu": "batch_normalization:gradient"},
    f"{_BN}:FixedBatchNormalization.forward": {"cudnn": "batch_normalization:fixed"},
    f"{_BN}:GeneralBatchNormalizationImpl.forward": {
        "cpu": "batch_normalization:forward"
    },
    f"{_BN}:GeneralBatchNormalizationImpl.backward": {
        "cpu": "batch_normalization:backward"
    },
    f"{_BN}:_apply_bn_fwd": {"cpu": "batch_normalization:apply"},
    # Pooling
    f"{_MAX_POOLING}:MaxPoolingND.forward_cpu": {"cpu": "pooling:max_forward"},
    f"{_MAX_POOLING}:MaxPoolingND.backward": {"cpu": "pooling:max_backward"},
    f"{_MAX_POOLING}:MaxPoolingNDGrad.forward_cpu": {"cpu": "pooling:max_gradient"},
    f"{_AVERAGE_POOLING}:AveragePooling2D.forward_cpu": {
        "cpu": "pooling:average_forward"
    },
    f"{_AVERAGE_POOLING}:AveragePooling2DGrad.forward_cpu": {
        "cpu": "pooling:average_backward"
    },
    f"{_F}.math.average:Mean.forward": {"cpu": "pooling:mean_forward"},
    f"{_F}.math.average:Mean.backward": {"cpu": "pooling:mean_backward"},
    # Elementwise
    f"{_RELU}:ReLU.forward_cpu": {"cpu": "elementwise:relu"},
    f"{_RELU}:ReLU.forward_gpu": {"cudnn": "elementwise:relu"},
    f"{_RELU}:ReLU.backward": {"cpu": "elementwise:relu_backward"},
    f"{_RELU}:ReLUGrad2.forward_cpu": {"cpu": "elementwise:relu_gradient"},
    f"{_RELU}:ReLUGrad2.forward_gpu": {"cudnn": "elementwise:relu_gradient"},
    f"{_F}.math.basic_math:Add.forward": {
        "cpu": "elementwise:add",
        "cudnn": "elementwise:add",
    },
    f"{_F}.math.basic_math:MultiAdd.forward": {"cudnn": "elementwise:add"},
    f"{_F}.math.sum:Sum.forward": {"cpu": "elementwise:sums"},
    # Loss
    f"{_CROSS_ENTROPY}.forward_cpu": {"cpu": "cross_entropy:forward"},
    f"{_CROSS_ENTROPY}.backward": {"cpu": "cross_entropy:backward"},
    # Optimizers
    "chainer.optimizer:UpdateRule.update": {"cpu": "optimizers:update"},
    "chainer.optimizer:GradientMethod.reallocate_cleared_grads": {
        "cpu": "optimizers:reallocate_cleared_grads"
    },
    "chainer.optimizer:GradientMethod.update": {
        "cpu": "all_parameters:update",
        "cuda": "optimizers:update",
    },
    "chainer.optimizer:Optimizer.check_nan_in_grads": {
        "cuda": "optimizers:check_nan_in_grads"
    },
    "chainer.optimizers.momentum_sgd:MomentumSGDRule.update_core_cpu": {
        "cpu": "optimizers:momentum_sgd"
    },
    "chainer.optimizers.adam:AdamRule.update_core_cpu": {"cpu": "optimizers:adam"},
}

_lock = threading.RLock()
_on: set[str] = set()
_left_off: frozenset[str] = frozenset()
_waiting: Waiting | None = None
_originals: dict[str, Callable] = {}
_put: dict[str, Callable] = {}  # what was put together last
_over: Callable[[Callable, Callable], Callable] = either


def is_on(layer: str) -> bool:
    """Tells whether a layer is in use."""
    return layer in _on


def switch(layer: str, on: bool) -> None:
    """Switches a layer on or off, for the whole process."""
    with _lock:
        if on:
            _on.add(layer)
        else:
            _on.discard(layer)
        _compose([target for target, functions in TABLE.items() if layer in functions])


def named(target: str, layer: str) -> str:
    """Names what a layer has for a row of the table: ``cudnn/convolution:forward``."""
    return f"{layer}/{TABLE[target][layer]}"


def is_left_off(name: str) -> bool:
    """Tells whether a function is not used though its layer may be on."""
    return name in _left_off


def leave_off(names: Iterable[str]) -> None:
    """Leaves the calls of these functions, and of no others, to the layers below."""
    global _left_off
    with _lock:
        _left_off = frozenset(names)
        _compose(TABLE)


def left_off() -> list[str]:
    """Returns the names of all functions that are left off."""
    return sorted(_left_off)


class Waiting(NamedTuple):
    """Layers that wait for a call, before which is decided what of them is used.

    Attributes:
        layers: Their names.
        concerns: Tells, from the arguments of a call, whether it is one.
        decide: Called once, before it.
    """

    layers: frozenset[str]
    concerns: Callable[[tuple], bool]
    decide: Callable[[], None]


def is_waiting() -> bool:
    """Tells whether layers wait for a call."""
    return _waiting is not None


def decide() -> None:
    """Decides now what waits for a call."""
    with _lock:  # other threads wait for the decision
        if _waiting is not None:
            try:
                _waiting.decide()
            finally:
                wait(None)


def wait(waiting: Waiting | None) -> None:
    """Has layers wait for a call of a method that they replace; ``None`` for none."""
    global _waiting
    with _lock:
        _waiting = waiting
        _compose(TABLE)


def _before(target: str, method: Callable) -> Callable:
    @functools.wraps(method)
    def call(*args, **kwargs):
        waiting = _waiting
        if waiting is not None:
            if not waiting.concerns(args):
                return method(*args, **kwargs)
            decide()
        return _put[target](*args, **kwargs)

    return call


@contextlib.contextmanager
def switched_on(layer: str) -> Iterator[None]:
    """A context in which a layer is on."""
    before = is_on(layer)
    switch(layer, True)
    try:
        yield
    finally:
        switch(layer, before)


@contextlib.contextmanager
def put_together_by(over: Callable[[Callable, Callable], Callable]) -> Iterator[None]:
    """A context in which ``over(fast, below)`` puts a function over what lies below."""
    global _over
    with _lock:
        before, _over = _over, over
        _compose(TABLE)
    try:
        yield
    finally:
        with _lock:
            _over = before
            _compose(TABLE)


def original(target: str) -> Callable:
    """Returns Chainer's own code for a row of the table."""
    with _lock:
        if target not in _originals:
            _originals[target] = getattr(*owner_of(target))
        return _originals[target]


@functools.lru_cache(512)
def is_own(*methods: Callable) -> bool:
    """Tells whether methods are Chainer's or of this package, and none a user's."""
    modules = [getattr(m, "__globals__", {}).get("__name__", "") for m in methods]
    return {m.partition(".")[0] for m in modules} <= {"chainer", "chainer_revive"}


def owner_of(target: str) -> tuple[object, str]:
    """Returns the class or module with a method, and the method's name in it."""
    module, _, path = target.partition(":")
    owner, _, name = path.rpartition(".")
    module = import_module(module)
    return (getattr(module, owner) if owner else module), name


def function_for(target: str, layer: str) -> Callable:
    """Returns what a layer has for a row of the table."""
    module, _, name = TABLE[target][layer].partition(":")
    return getattr(import_module(f"{LAYERS[layer]}.{module}"), name)


def _compose(targets) -> None:
    for target in targets:
        method = original(target)
        for layer in LAYERS:
            if layer not in _on or layer not in TABLE[target]:
                continue
            if named(target, layer) not in _left_off:
                method = _over(function_for(target, layer), method)
        if _waiting is not None and not _waiting.layers.isdisjoint(TABLE[target]):
            method = _before(target, method)
        owner, name = owner_of(target)
        now = getattr(owner, name)
        # What a user has put there stays, and goes on to what it found there.
        if is_own(now) or now is _put.get(target):
            setattr(owner, name, method)
        _put[target] = method
