"""MNIST through two hidden units: how they lie there, with and without mixing."""

from __future__ import annotations

import sys

import chainer.functions as F
import chainer.links as L
import numpy as np
from experiment import SETTINGS, parse_args, print_table, repeat, train
from matplotlib.figure import Figure
from scipy.spatial import ConvexHull

from chainer_mmix import MixupSequential
from chainer_mmix.analysis.figure import add_class_legend, save_figure, scatter_classes
from chainer_mmix.analysis.hidden import hidden_states
from chainer_mmix.analysis.predictions import predict
from chainer_mmix.datasets import get_digits, get_mnist5k

BOTTLENECK = 3  # its mixing point


def make_net(n_class: int) -> MixupSequential:
    return MixupSequential(
        (L.Linear(None, 128), True),
        (F.relu, False),
        (L.Linear(128, 2), True),
        (L.Linear(2, 128), True),
        (F.relu, False),
        (L.Linear(128, n_class), False),
    )


def scatter_ratio(h: np.ndarray, t: np.ndarray) -> float:
    """Divides the scatter between the classes by that within them."""
    means = np.stack([h[t == label].mean(axis=0) for label in range(t.max() + 1)])
    within = ((h - means[t]) ** 2).sum()
    return ((means[t] - h.mean(axis=0)) ** 2).sum() / within


def mean_area(h: np.ndarray, t: np.ndarray) -> float:
    """Returns the share of the hull of all points that a class's hull has."""
    areas = [ConvexHull(h[t == label]).volume for label in range(t.max() + 1)]
    return np.mean(areas) / ConvexHull(h).volume


def main() -> None:
    args = parse_args(__doc__, seeds=4, epoch=40)
    settings = {name: SETTINGS[name] for name in ("no mixing", "manifold mixup")}
    try:
        digits = get_mnist5k()
    except ImportError as e:
        print(f"{e}; until then, scikit-learn's digits take its place", file=sys.stderr)
        digits = get_digits()

    def measure(seed: int, **setting):
        numbers, states = {}, {}
        for n_class in (5, 10):
            data, test = ([e for e in part if e[1] < n_class] for part in digits)
            net = train(
                lambda n=n_class: make_net(n), data, seed, args.epoch, **setting
            )
            x, t = (np.stack(part) for part in zip(*test, strict=True))
            h = hidden_states(net, BOTTLENECK, x, t)
            states[n_class] = h, t
            numbers |= {
                f"0–{n_class - 1}: test accuracy": (
                    predict(net, x).argmax(1) == t
                ).mean(),
                f"0–{n_class - 1}: scatter between / within": scatter_ratio(h, t),
                f"0–{n_class - 1}: area of a class": mean_area(h, t),
            }
        return numbers, states

    results = repeat(measure, args, settings)
    print_table({name: [run[0] for run in runs] for name, runs in results.items()})

    figure = Figure(figsize=(9, 8), layout="constrained")
    rows = figure.subplots(2, 2)
    for row, n_class in zip(rows, (5, 10), strict=True):
        for axes, (name, runs) in zip(row, results.items(), strict=True):
            h, t = runs[0][1][n_class]
            scatter_classes(axes, h, t, size=14)
            axes.set_title(f"digits 0–{n_class - 1}, {name}")
            axes.set_xlabel("hidden unit 0")
            axes.set_ylabel("hidden unit 1")
    add_class_legend(axes, range(10))
    save_figure(figure, args.out / "bottleneck.png")


if __name__ == "__main__":
    main()
