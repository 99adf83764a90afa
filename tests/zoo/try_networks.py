"""Tries networks of chainercv2: takes a stage and a name in each line.

Answers each with a line of JSON.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import json
import random
import sys

import chainer
import chainer.functions as F
import numpy as np

import chainer_revive
from chainer_mmix import ManifoldMixupClassifier, MixupLayers
from chainer_mmix.links.graph import leaves
from chainer_mmix.links.suggest import survey

N = 2
SMALL = (96, 96), (128, 128), (192, 192), (256, 256)
AUDIO = "jasper", "quartznet"
POSES = "alphapose", "centernet", "lwopenpose", "simplepose"
_pool = F.average_pooling_2d


@functools.wraps(_pool)
def average_pooling_2d(x, ksize, *args, **kwargs):
    """Pools all that there is where the last pooling is made for larger images."""
    sizes = (ksize, ksize) if isinstance(ksize, int) else ksize
    return _pool(x, tuple(map(min, sizes, x.shape[2:])), *args, **kwargs)


F.average_pooling_2d = average_pooling_2d  # before chainercv2 looks


def make(name: str, dtype: type, **kwargs) -> chainer.Chain:
    from chainercv2.model_provider import get_model

    np.random.seed(0)
    if name.startswith(AUDIO):
        kwargs["from_audio"] = False
    if name.startswith(POSES):
        kwargs["return_heatmap"] = True  # which training needs
    with chainer.using_config("dtype", dtype):
        return get_model(name, **kwargs)


def make_small(name: str) -> tuple[chainer.Chain, tuple, dict]:
    """Returns a network, inputs as small as it takes, and its options for these."""
    fixed = name.endswith(("cifar10", "svhn"))
    small = [] if fixed else [{"in_size": size} for size in SMALL]
    for options in [*small, {}]:
        try:
            net = make(name, np.float32, **options)
            inputs = inputs_of(name, net)
            with chainer.using_config("train", False), chainer.no_backprop_mode():
                net(*inputs)  # which may initialise weights
            return net, inputs, options
        except Exception as e:  # whatever it says to the size
            error = e
    raise error


def inputs_of(name: str, net: chainer.Chain, seed: int = 0) -> tuple:
    rng = np.random.RandomState(seed)

    def uniform(*shape: int) -> np.ndarray:
        return rng.rand(*shape).astype(np.float32)

    if name == "voca8flame":
        return uniform(N, 1, 16, 29), np.full(N, 3, np.float32)
    if name == "nvpattexp116bazel76":
        return uniform(N, 8, 16, 29), np.full(N, 3, np.int64)
    if name.startswith(AUDIO):
        return uniform(N, net.in_size, 160), np.full(N, 160, np.int64)
    return (uniform(N, 3, *net.in_size),)


def total(y, _=None) -> chainer.Variable:
    """Weighs all outputs at random, the same each time."""
    rng = np.random.RandomState(1)
    outputs = [h for h in leaves(y) if isinstance(h, chainer.Variable)]
    return sum(F.sum(h * rng.randn(*h.shape).astype(h.dtype)) for h in outputs)


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
    _, *names = inspect.signature(type(net).__call__).parameters
    by_name = len(inputs) > 1  # since the second may be left out
    model = ManifoldMixupClassifier(
        MixupLayers(net, [point]),
        **{"mixup_alpha": 2, "lossfun": total, "accfun": None, "seed": 0},
        label_key="t" if by_name else -1,
    )
    t = np.arange(N, dtype=np.int32)
    try:
        if by_name:
            loss = model(**dict(zip(names, inputs, strict=True)), t=t)
        else:
            loss = model(*inputs, t)
        model.cleargrads()
        loss.backward()
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    grads = [p.grad for p in net.params() if p.grad is not None]
    if not grads or not all(np.isfinite(g).all() for g in grads):
        return "no finite gradient"
    return ""


def try_mix(name: str) -> dict:
    chainer_revive.use(cpu="numba")
    net, inputs, _ = make_small(name)
    _, proposal = survey(net, inputs)
    points = {point: step(net, inputs, point) for point in proposal}
    return {"input": inputs[0].shape[1:], "points": points}


def try_gradients(name: str) -> dict:
    net, _, options = make_small(name)
    wide = make(name, np.float64, **options)
    for narrow, param in zip(net.params(), wide.params(), strict=True):
        param.array = narrow.array.astype(np.float64)
    for seed in range(3):
        result = errors(net, wide, inputs_of(name, net, seed))
        if result["numba"] <= max(1e-5, 10 * result["chainer"]):
            break
    return result


def errors(net: chainer.Chain, wide: chainer.Chain, inputs: tuple) -> dict[str, float]:
    """Returns how far gradients are from those of Chainer's own code in float64."""
    of_wide = tuple(
        x.astype(np.float64) if x.dtype == np.float32 else x for x in inputs
    )
    exact = gradients(wide, of_wide, "chainer")

    def error(of: chainer.Chain, x: tuple, cpu: str) -> float:
        difference = gradients(of, x, cpu) - exact
        return float(np.linalg.norm(difference) / np.linalg.norm(exact))

    return {
        "float64": error(wide, of_wide, "numpy"),
        "numba": error(net, inputs, "numba"),
        "chainer": error(net, inputs, "chainer"),
    }


def main() -> None:
    stages = {"mix": (try_mix, "error"), "gradients": (try_gradients, "no_gradients")}
    for line in sys.stdin:
        stage, name = line.split()
        attempt, failure = stages[stage]
        try:
            with contextlib.redirect_stdout(sys.stderr):
                result = attempt(name)
        except Exception as e:
            result = {failure: f"{type(e).__name__}: {e}"}
        gc.collect()
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
