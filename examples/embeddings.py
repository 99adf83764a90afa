"""500 digits: t-SNE of the last hidden layer, with and without mixing."""

from __future__ import annotations

import numpy as np
from experiment import mlp, parse_args, print_table, repeat, train
from matplotlib.figure import Figure
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from chainer_mmix.analysis.figure import add_class_legend, save_figure, scatter_classes
from chainer_mmix.analysis.hidden import hidden_states
from chainer_mmix.analysis.predictions import predict
from chainer_mmix.analysis.representation import project
from chainer_mmix.datasets import get_digits, take_subset

LAYER = 4  # the mixing point after the last hidden layer


def main() -> None:
    args = parse_args(__doc__, seeds=4, epoch=100)
    digits, test = get_digits()
    x, t = (np.stack(part) for part in zip(*test, strict=True))

    def measure(seed: int, **setting):
        data = take_subset(digits, 500, seed)
        net = train(lambda: mlp(64, 128, 128, 10), data, seed, args.epoch, **setting)
        known, labels = (np.stack(part) for part in zip(*data, strict=True))
        nearest = KNeighborsClassifier(5)
        nearest.fit(hidden_states(net, LAYER, known, labels), labels)
        states = hidden_states(net, LAYER, x, t)
        points, _ = project(states, "tsne")
        numbers = {
            "test accuracy": (predict(net, x).argmax(axis=1) == t).mean(),
            "5 nearest training states": nearest.score(states, t),
            "5 nearest points of t-SNE": cross_val_score(
                KNeighborsClassifier(5), points, t, cv=LeaveOneOut()
            ).mean(),
        }
        return numbers, points

    results = repeat(measure, args)
    print_table({name: [run[0] for run in runs] for name, runs in results.items()})

    figure = Figure(figsize=(13, 4.4), layout="constrained")
    panels = figure.subplots(1, len(results))
    for axes, (name, runs) in zip(panels, results.items(), strict=True):
        scatter_classes(axes, runs[0][1], t, size=14)
        axes.set_title(name)
        axes.set_xticks([])
        axes.set_yticks([])
    add_class_legend(axes, range(10))
    save_figure(figure, args.out / "embeddings.png")


if __name__ == "__main__":
    main()
