"""What the experiments share: options, settings, training, table, curves."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer.iterators import SerialIterator
from chainer.training import StandardUpdater
from matplotlib.figure import Figure
from scipy import stats
from threadpoolctl import threadpool_limits

from chainer_mmix import ManifoldMixupClassifier, MixupSequential
from chainer_mmix.analysis.figure import OKABE_ITO
from chainer_mmix.progress import Progress
from chainer_mmix.runs.compare import Spread
from chainer_mmix.training import set_seed

# Arguments of ManifoldMixupClassifier, with the alphas of the paper. Point 0 is the
# input; without layer_mix, the points of the network take turns.
SETTINGS = {
    "no mixing": {"mixup_hidden": False},
    "input mixup": {"mixup_alpha": 1, "layer_mix": 0},
    "manifold mixup": {"mixup_alpha": 2},
}

# How the settings are drawn, in their order.
STYLES = [
    {"color": OKABE_ITO[color], "marker": marker, "markersize": 5}
    for color, marker in ((0, "o"), (2, "s"), (5, "^"))
]


def parse_args(description: str, seeds: int, epoch: int) -> argparse.Namespace:
    """Reads the options, makes the folder, and switches BLAS to one thread.

    Args:
        description (str): What the script does.
        seeds (int): The default number of seeds.
        epoch (int): The default number of epochs.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--seeds", type=int, default=seeds, help="runs a setting (default: %(default)s)"
    )
    parser.add_argument(
        "--epoch", type=int, default=epoch, help="epochs a run (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("result"),
        help="folder of the picture (default: %(default)s)",
    )
    parser.add_argument(
        "--quiet",
        action="store_true",
        help="show the progress by plain lines, on a terminal too",
    )
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds is {args.seeds}: a spread takes at least 2")
    if args.epoch < 1:
        parser.error(f"--epoch is {args.epoch}: choose at least 1")
    args.out.mkdir(parents=True, exist_ok=True)
    threadpool_limits(1)  # so small networks gain nothing from a second
    return args


def mlp(*sizes: int) -> MixupSequential:
    """Makes linear layers with ReLU between them, which mix at input and hidden layers.

    The points are 0, 2, 4 and so on: the inputs of the linear layers.

    Args:
        sizes (int): The numbers of inputs, of units in each hidden layer, of outputs.
    """
    layers = []
    for n_in, n_out in pairwise(sizes):
        layers += [(L.Linear(n_in, n_out), True), (F.relu, False)]
    return MixupSequential(*layers[:-1])


def train(
    make_net: Callable[[], chainer.Link],
    data: Sequence,
    seed: int,
    epoch: int,
    batchsize: int = 100,
    **setting,
) -> chainer.Link:
    """Trains a new network with Adam.

    Args:
        make_net (callable): Returns it.
        data (sequence): Examples ``(x, t)``.
        seed (int): Fixes its weights and what is drawn in training.
        epoch (int): The number of epochs.
        batchsize (int): The default is 100.
        setting: Arguments of ``ManifoldMixupClassifier``.

    Returns:
        chainer.Link: The network.
    """
    set_seed(seed, chainer.get_device("@numpy"))
    model = ManifoldMixupClassifier(make_net(), seed=seed, **setting)
    optimizer = chainer.optimizers.Adam().setup(model)
    updater = StandardUpdater(SerialIterator(data, batchsize), optimizer)
    while updater.epoch < epoch:
        updater.update()
    return model.predictor


def repeat(
    measure: Callable[..., Any],
    args: argparse.Namespace,
    settings: Mapping[str, dict] = SETTINGS,
) -> dict[str, list]:
    """Calls ``measure(seed, **setting)`` for all settings and seeds.

    Args:
        measure (callable): Trains a network and returns what is of interest.
        args (argparse.Namespace): What :func:`parse_args` returned.
        settings (mapping): Keyword arguments of ``measure`` by the name of the setting.

    Returns:
        dict: For each setting, what it returned, seed by seed.
    """
    results = {name: [] for name in settings}
    with Progress(args.seeds * len(settings), args.quiet) as progress:
        for seed in range(args.seeds):
            for name, setting in settings.items():
                progress(f"{name}, seed {seed}")
                results[name].append(measure(seed, **setting))
    return results


def print_table(numbers: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Prints a Markdown table: a row a number, a column a setting.

    There is mean ± sample standard deviation, then the paired difference to the first
    setting: mean ± standard error and the p-value of the t-test.

    Args:
        numbers (mapping): For each setting, the numbers by their names, seed by seed.
    """
    first, *others = numbers
    rows = [["", *numbers, *(f"{name} − {first}" for name in others)]]
    for what in numbers[first][0]:
        values = {name: [run[what] for run in runs] for name, runs in numbers.items()}
        top = max(abs(np.mean(v)) for v in values.values())
        # Three digits of the largest mean.
        digits = min(max(3 - math.ceil(math.log10(top)), 0), 3) if top else 3
        row = [what]
        for spread in map(Spread.of, values.values()):
            row.append(f"{spread.mean:.{digits}f} ± {spread.std:.{digits}f}")
        for name in others:
            row.append(_difference(values[name], values[first], digits))
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        print("|", " | ".join(map(str.ljust, row, widths)), "|")


def _difference(values: Sequence[float], base: Sequence[float], digits: int) -> str:
    deltas = np.subtract(values, base)
    error = stats.sem(deltas)
    text = f"{deltas.mean():+.{digits}f} ± {error:.{digits}f}"
    if error == 0:
        return text
    p = stats.ttest_1samp(deltas, 0).pvalue
    return f"{text}, p < 0.001" if p < 0.001 else f"{text}, p = {p:.3f}"


def plot_curves(
    numbers: Mapping[str, Sequence[Mapping[str, float]]],
    panels: Sequence[tuple[str, Sequence, Sequence[str]]],
    ylabel: str,
) -> Figure:
    """Draws numbers as curves, a line a setting: mean and sample standard deviation.

    Args:
        numbers (mapping): As for :func:`print_table`.
        panels (sequence): For each panel: what the x axis is, where the numbers stand
            on it (texts for categories), and their names.
        ylabel (str): What the numbers are.
    """
    figure = Figure(figsize=(1 + 5 * len(panels), 4), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (xlabel, x, names) in zip(row, panels, strict=True):
        for i, (name, style) in enumerate(zip(numbers, STYLES, strict=False)):
            values = [[run[key] for key in names] for run in numbers[name]]
            mean, std = np.mean(values, axis=0), np.std(values, axis=0, ddof=1)
            # Categories have no order that a line could follow.
            line = {"linestyle": "none"} if isinstance(x[0], str) else {}
            # Side by side, so that no error bar hides another.
            place = np.arange(len(x)) if line else np.array(x)
            place = place + 0.01 * np.ptp(place) * (i - 1)
            axes.errorbar(place, mean, std, capsize=3, label=name, **style | line)
            if line:
                axes.set_xticks(range(len(x)), x)
        axes.set_xlabel(xlabel)
        axes.grid(alpha=0.3)
    row[0].set_ylabel(ylabel)
    row[0].legend()
    return figure
