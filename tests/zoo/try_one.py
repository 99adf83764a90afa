"""Tries one network of chainercv2, and prints the result in one line of JSON."""

from __future__ import annotations

import json
import random
import sys

import chainer
import numpy as np
from chainercv2.model_provider import get_model

import chainer_revive
from chainer_mmix import ManifoldMixupClassifier, MixupLayers
from chainer_mmix.links.graph import leaves
from chainer_mmix.links.suggest import survey

N = 2


def make(name: str, dtype: type) -> chainer.Chain:
    np.random.seed(0)
    with chainer.using_config("dtype", dtype):
        return get_model(name)


def inputs_of(name: str, net: chainer.Chain) -> tuple:
    rng = np.random.RandomState(0)

    def uniform(*shape: int) -> np.ndarray:
        return rng.rand(*shape).astype(np.float32)

    if name == "voca8flame":
        return uniform(N, 1, 16, 29), np.full(N, 3, np.float32)
    if name == "nvpattexp116bazel76":
        return uniform(N, 8, 16, 29), np.full(N, 3, np.int64)
    if name.startswith(("jasper", "quartznet")):
        return uniform(N, net.in_size, 160), np.full(N, 160, np.int64)
    return (uniform(N, 3, *net.in_size),)


def total(y, _=None) -> chainer.Variable:
    """Weighs all outputs at random, the same each time."""
    rng = np.random.RandomState(1)
    outputs = [h for h in leaves(y) if isinstance(h, chainer.Variable)]
    return sum(
        chainer.functions.sum(h * rng.randn(*h.shape).astype(h.dtype)) for h in outputs
    )


def gradients(net: chainer.Chain, inputs: tuple, cpu: str) -> np.ndarray:
    """Returns those of all weights, one after another."""
    chainer_revive.use(cpu=cpu)
    np.random.seed(2)
    random.seed(2)
    net.cleargrads()
    total(net(*inputs)).backward()
    grads = [param.grad for _, param in sorted(net.namedparams())]
    return np.concatenate([g.ravel() for g in grads if g is not None])


def step(net: chainer.Chain, inputs: tuple, point: str) -> str:
    """Trains a mixed step; returns what went wrong."""
    model = ManifoldMixupClassifier(
        MixupLayers(net, [point]), mixup_alpha=2, lossfun=total, accfun=None, seed=0
    )
    try:
        loss = model(*inputs, np.arange(N, dtype=np.int32))
        model.cleargrads()
        loss.backward()
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    grads = [p.grad for p in net.params() if p.grad is not None]
    if not grads or not all(np.isfinite(g).all() for g in grads):
        return "no finite gradient"
    return ""


def main(name: str) -> None:
    net = make(name, np.float32)
    inputs = inputs_of(name, net)
    _, proposal = survey(net, inputs)
    result: dict[str, dict | float | str] = {}
    result["points"] = {point: step(net, inputs, point) for point in proposal}
    wide = make(name, np.float64)
    for narrow, param in zip(net.params(), wide.params(), strict=True):
        param.array = narrow.array.astype(np.float64)
    of_wide = tuple(
        x.astype(np.float64) if x.dtype == np.float32 else x for x in inputs
    )
    try:
        exact = gradients(wide, of_wide, "chainer")
        for key, of, x, cpu in (
            ("float64", wide, of_wide, "numpy"),
            ("numba", net, inputs, "numba"),
            ("chainer", net, inputs, "chainer"),
        ):
            difference = gradients(of, x, cpu) - exact
            result[key] = float(np.linalg.norm(difference) / np.linalg.norm(exact))
    except Exception as e:
        result["no_gradients"] = f"{type(e).__name__}: {e}"
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
