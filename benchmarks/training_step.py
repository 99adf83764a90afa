"""A training step with mixing against one without: ResNet50, batch 64, 32x32."""

from __future__ import annotations

import chainer
import numpy as np
from paired import measure, report

from chainer_mmix import ManifoldMixupClassifier, MixupLayers
from chainer_mmix.models import CNN, ResNet50


def step(net, mixup: bool, shape: tuple[int, ...], layer_mix=None):
    np.random.seed(0)
    model = ManifoldMixupClassifier(net, mixup, layer_mix=layer_mix, seed=0)
    optimizer = chainer.optimizers.MomentumSGD(1e-3).setup(model)
    x = np.random.rand(*shape).astype(np.float32)
    t = np.random.randint(0, 10, len(x)).astype(np.int32)
    return lambda: optimizer.update(model, x, t)


def main() -> None:
    for network, shape, repeats in (
        (ResNet50, (64, 3, 32, 32), 15),
        (CNN, (64, 1, 8, 8), 100),
    ):
        points = network.default_layer_mix
        candidates = {"no mixing": step(network(10), False, shape)}
        for point in points:
            candidates[f"mixing at {point}"] = step(network(10), True, shape, point)
        title = f"Training step, {network.__name__}, input {shape}"
        report(title, measure(candidates, repeats))

    shape = (64, 3, 32, 32)
    named = MixupLayers(ResNet50(10), ["res2"])
    candidates = {
        "hand-written, mixing at 2": step(ResNet50(10), True, shape, 2),
        "MixupLayers, mixing at 'res2'": step(named, True, shape, "res2"),
    }
    report(f"Training step, ResNet50, input {shape}", measure(candidates, 25))


if __name__ == "__main__":
    main()
