"""Digits that are attacked or deformed: the accuracy, with and without mixing."""

from __future__ import annotations

import numpy as np
from experiment import mlp, parse_args, plot_curves, print_table, repeat, train

from chainer_mmix.analysis.deform import DEFORMATIONS, deform
from chainer_mmix.analysis.fgsm import fgsm, gradient_sign
from chainer_mmix.analysis.figure import save_figure
from chainer_mmix.analysis.predictions import predict
from chainer_mmix.datasets import get_digits

EPS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2)


def main() -> None:
    args = parse_args(__doc__, seeds=4, epoch=60)
    data, test = get_digits()
    x, t = (np.stack(part) for part in zip(*test, strict=True))
    rng = np.random.default_rng(0)
    deformed = {
        f"{kind} {amount:g}{'' if kind == 'zoom' else '°'}": deform(
            x, kind, amount, rng
        )
        for kind, amount in DEFORMATIONS
    }

    def measure(seed: int, **setting) -> dict[str, float]:
        net = train(lambda: mlp(64, 128, 128, 10), data, seed, args.epoch, **setting)
        direction = gradient_sign(net, x, t)
        images = {f"FGSM, ε = {eps:g}": fgsm(x, direction, eps, (0, 1)) for eps in EPS}
        return {
            name: 100 * (predict(net, changed).argmax(axis=1) == t).mean()
            for name, changed in (images | deformed).items()
        }

    results = repeat(measure, args)
    print_table(results)
    names = list(results["no mixing"][0])
    panels = [
        ("ε of FGSM (pixels are 0 to 1)", EPS, names[: len(EPS)]),
        ("deformation", [name.replace(" ", "\n") for name in deformed], list(deformed)),
    ]
    save_figure(
        plot_curves(results, panels, "test accuracy (%)"), args.out / "robustness.png"
    )


if __name__ == "__main__":
    main()
