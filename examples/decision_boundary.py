"""Two spirals: where a network is sure, with and without mixing."""

from __future__ import annotations

import chainer
import numpy as np
from chainer.datasets import TupleDataset
from experiment import mlp, parse_args, print_table, repeat, train
from matplotlib.figure import Figure

from chainer_mmix.analysis.boundary import confidence_map, draw_boundary, unsure_share
from chainer_mmix.analysis.figure import save_figure
from chainer_mmix.analysis.predictions import predict


def spirals(n: int, noise: float, rng: np.random.Generator) -> TupleDataset:
    """Makes n points of two spirals: 0 and, half a turn ahead, 1."""
    t = np.arange(n, dtype=np.int32) % 2
    turn = np.sqrt(rng.uniform(0.05, 1, n))  # evenly along the arm
    angle = 3 * np.pi * turn + np.pi * t
    x = turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return TupleDataset((x + rng.normal(0, noise, x.shape)).astype(np.float32), t)


def gradient_norm(net: chainer.Link, x: np.ndarray) -> float:
    """Computes how steep the log-odds of the classes are, on average over points."""
    x = chainer.Variable(x)
    y = net(x)
    (gradient,) = chainer.grad([y[:, 0] - y[:, 1]], [x])
    return float(np.linalg.norm(gradient.array, axis=1).mean())


def main() -> None:
    args = parse_args(__doc__, seeds=5, epoch=60)

    def measure(seed: int, **setting):
        rng = np.random.default_rng(seed)
        points, test = spirals(400, 0.03, rng), spirals(1000, 0.03, rng)
        net = train(
            lambda: mlp(2, 64, 64, 64, 2), points, seed, args.epoch, 50, **setting
        )
        x, t = (np.stack(part) for part in zip(*test, strict=True))
        map = confidence_map(net, x)
        plane = np.stack(np.meshgrid(map.x, map.y), axis=-1).reshape(-1, 2)
        numbers = {
            "test accuracy": (predict(net, x).argmax(axis=1) == t).mean(),
            "share of the plane below 0.9 confidence": unsure_share(map.probability),
            "gradient norm of the log-odds": gradient_norm(net, plane.astype("f")),
        }
        return numbers, map, points

    results = repeat(measure, args)
    numbers = {name: [run[0] for run in runs] for name, runs in results.items()}
    print_table(numbers)

    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, len(results), sharex=True, sharey=True)
    for axes, (name, runs) in zip(panels, results.items(), strict=True):
        _, map, points = runs[0]
        # Class 0 yellow, class 1 purple, unsure green.
        points = (np.stack(part) for part in zip(*points, strict=True))
        image = draw_boundary(axes, map, *points, size=14)
        axes.set_title(f"{name}\n{unsure_share(map.probability):.0%} below 0.9")
        axes.set_aspect("equal")
    label = "probability of class 0 (line: 0.5)"
    figure.colorbar(image, ax=panels, label=label, shrink=0.8)
    legend = panels[1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)
    legend.get_frame().set_facecolor("gray")
    save_figure(figure, args.out / "decision_boundary.png")


if __name__ == "__main__":
    main()
