"""The functions of :mod:`chainer_revive.cuda`, each called by itself."""

from __future__ import annotations

from collections.abc import Iterator

import chainer
import chainer.functions as F
import numpy as np
from chainer import backend, optimizers
from chainer.functions.connection.linear import (
    LinearFunction,
    LinearGradData,
    LinearGradWeight,
)
from chainer.optimizer_hooks import GradientClipping, WeightDecay

from chainer_revive.cuda import cross_entropy as one_kernel
from chainer_revive.gpu_check.case import Case, Unit, numbers

_SIZES = (37, 41), (9001,)  # the last is more than one block's
_SCALE = 2.0  # of the loss; with more, Chainer's norm overflows half precision
_RULES = {
    "MomentumSGD": lambda: optimizers.MomentumSGD(0.1, 0.8),
    "NesterovAG": lambda: optimizers.NesterovAG(0.1, 0.8),
    "Adam": lambda: optimizers.Adam(0.01),
    "AdamW": lambda: optimizers.AdamW(0.01, eta=0.5, weight_decay_rate=0.02),
}


def _model(arrays) -> chainer.Chain:
    model = chainer.Chain()
    device = backend.get_device_from_array(arrays[0])
    with model.init_scope():
        for i, array in enumerate(arrays):
            setattr(model, f"p{i}", chainer.Parameter(array))
    model.to_device(device)
    return model


def _params(model) -> list:
    return [p for _, p in sorted(model.namedparams())]


def _steps() -> Iterator[Case]:
    for name, make in _RULES.items():

        def compute(*arrays, make=make):
            n = len(_SIZES)
            model = _model(arrays[:n])
            optimizer = make().setup(model)
            if arrays[0].dtype == np.float16:
                optimizer.use_fp32_update()
            optimizer.add_hook(WeightDecay(0.1))
            optimizer.add_hook(GradientClipping(20.0))
            for grads in (arrays[n : 2 * n], arrays[2 * n :]):
                for param, grad in zip(_params(model), grads, strict=True):
                    param.grad = grad
                    param._loss_scale = _SCALE
                optimizer.update()
            states = [p.update_rule.state for p in _params(model)]
            return [
                *(p.array for p in _params(model)),
                *(state[key] for state in states for key in sorted(state)),
            ]

        arrays = numbers(*_SIZES, *_SIZES)
        params, grads = arrays[: len(_SIZES)], arrays[len(_SIZES) :]
        steps = [_SCALE * g / step for step in (1, 2) for g in grads]
        yield Case(name, (*params, *steps), compute)


def _finite() -> Iterator[Case]:
    for bad in (None, np.nan, np.inf, -np.inf):

        def compute(*grads):
            model = _model(grads)
            optimizer = optimizers.SGD().setup(model)
            optimizer.loss_scaling()
            for param, grad in zip(_params(model), grads, strict=True):
                param.grad = grad
            optimizer.check_nan_in_grads()
            return [np.array([1.0 + optimizer._loss_scaling_isnan])]

        grads = numbers(*_SIZES)
        if bad is not None:
            grads[-1][-1] = bad
        yield Case(str(bad), tuple(grads), compute)


def _labels() -> tuple:
    n, n_class = 37, 70
    (x,) = numbers((n, n_class))
    a, b = np.random.RandomState(1).randint(0, n_class, (2, n)).astype(np.int32)
    return 3 * x, a, b


# A weight of the first target, of the batch or of each of its samples.
_LAMBDAS = {
    "one lambda": 0.3,
    "one lambda a sample": np.random.RandomState(2).uniform(size=37),
}


def _pair(lam, x) -> tuple:
    """The weights of both targets, as a loss gets them."""
    device = backend.get_device_from_array(x)
    return device.send((lam, 1 - lam)) if np.ndim(lam) else (lam, 1 - lam)


def _loss() -> Iterator[Case]:
    for name, lam in _LAMBDAS.items():

        def compute(x, a, b, lam=lam):
            pair = _pair(lam, x)
            result = one_kernel.cross_entropy(x, (a, b), pair, -1, True)
            if result is not NotImplemented:
                return result
            v = chainer.Variable(x)
            losses = [F.softmax_cross_entropy(v, t, reduce="no") for t in (a, b)]
            if np.ndim(lam):
                pair = [weights.astype(losses[0].dtype) for weights in pair]
            loss = F.mean(losses[0] * pair[0] + losses[1] * pair[1])
            loss.backward()
            return loss.array, v.grad

        yield Case(name, _labels(), compute)


def _accuracy() -> Iterator[Case]:
    for name, lam in _LAMBDAS.items():

        def compute(y, a, b, lam=lam):
            first, second = _pair(lam, y)
            result = one_kernel.accuracy(y, (a, b), (first, second), -1)
            if result is not NotImplemented:
                return (result,)
            predicted = y.argmax(axis=1)
            hits = first * (predicted == a) + second * (predicted == b)
            return (hits.mean(),)

        x, a, b = _labels()
        a[::2] = x[::2].argmax(axis=1)
        yield Case(name, (x, a, b), compute)


def _linear(node_class, *shapes):
    def cases() -> Iterator[Case]:
        def compute(*inputs):
            dtype = [inputs[0].dtype] if node_class is LinearGradWeight else []
            return [v.array for v in node_class(*dtype).apply(inputs)]

        yield Case("", tuple(numbers(*shapes)), compute)

    return cases


UNITS = tuple(
    Unit(f"{layer}/{name}", what, cases, layer)
    for layer, name, what, cases in (
        ("cuda", "optimizers:update", "optimizers", _steps),
        ("cuda", "optimizers:check_nan_in_grads", "finite gradients", _finite),
        ("cuda", "cross_entropy:cross_entropy", "mixed loss", _loss),
        ("cuda", "cross_entropy:accuracy", "mixed accuracy", _accuracy),
        (
            *("capture", "linear:forward", "linear layer in a graph"),
            _linear(LinearFunction, (33, 50), (17, 50), (17,)),
        ),
        (
            *("capture", "linear:gradient_x", "linear layer in a graph, by x"),
            _linear(LinearGradData, (17, 50), (33, 17)),
        ),
        (
            *("capture", "linear:gradient_w", "linear layer in a graph, by W"),
            _linear(LinearGradWeight, (33, 50), (33, 17)),
        ),
    )
)
