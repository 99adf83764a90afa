"""Digits through twelve hidden units: in how many directions each class spreads."""

from __future__ import annotations

import chainer.functions as F
import chainer.links as L
import numpy as np
from experiment import STYLES, parse_args, print_table, repeat, train
from matplotlib.figure import Figure

from chainer_mmix import MixupSequential
from chainer_mmix.analysis.figure import save_figure
from chainer_mmix.analysis.hidden import hidden_states
from chainer_mmix.analysis.predictions import predict
from chainer_mmix.analysis.singular_values import singular_values
from chainer_mmix.datasets import get_digits

BOTTLENECK = 3  # its mixing point


def make_net() -> MixupSequential:
    return MixupSequential(
        (L.Linear(64, 128), True),
        (F.relu, False),
        (L.Linear(128, 12), True),
        (L.Linear(12, 128), True),
        (F.relu, False),
        (L.Linear(128, 10), False),
    )


def main() -> None:
    args = parse_args(__doc__, seeds=4, epoch=60)
    data, test = get_digits()
    x, t = (np.stack(part) for part in zip(*test, strict=True))

    def measure(seed: int, **setting):
        net = train(make_net, data, seed, args.epoch, **setting)
        values = singular_values(hidden_states(net, BOTTLENECK, x, t), t)
        rest = {label: own[1:].sum() for label, own in values.items()}
        share = [rest[label] / own.sum() for label, own in values.items()]
        numbers = {
            "test accuracy": (predict(net, x).argmax(axis=1) == t).mean(),
            **{f"class {label}: all but the largest": s for label, s in rest.items()},
            "mean of the classes": np.mean(list(rest.values())),
            "mean, as a share of all": np.mean(share),
        }
        return numbers, values

    results = repeat(measure, args)
    print_table({name: [run[0] for run in runs] for name, runs in results.items()})

    figure = Figure(figsize=(12, 5), layout="constrained")
    grid = figure.subplots(2, 5, sharex=True, sharey=True)
    for label, axes in enumerate(grid.flat):
        for (name, runs), style in zip(results.items(), STYLES, strict=True):
            mean = np.mean([values[label] for _, values in runs], axis=0)
            number = np.arange(1, len(mean) + 1)
            axes.plot(number, mean, label=name, **style)
        axes.set_yscale("log")
        axes.set_title(f"class {label}")
        axes.grid(alpha=0.3)
    figure.supxlabel("number of the singular value")
    figure.supylabel("singular value / √samples")
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3)
    save_figure(figure, args.out / "flatness.png")


if __name__ == "__main__":
    main()
