"""Draws the learning curves of training runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from chainer_mmix.analysis.figure import OKABE_ITO, save_figure
from chainer_mmix.analysis.groups import Group
from chainer_mmix.analysis.runs import (
    TRAINING_LOSS,
    VALIDATION_ACCURACY,
    VALIDATION_LOSS,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by their markers when there are more groups than colours.
_MARKERS = ("", "o", "s", "^")
_NOTE = (
    "Lines: mean over the runs of a setting; bands: ± one sample standard deviation.\n"
    "Training loss under mixing is measured against mixed targets: compare it neither "
    "between settings nor with the validation loss."
)


def mean_curve(group: Group, key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Averages one key of the logs over a group's runs, epoch by epoch.

    Several entries of one epoch are averaged first. Runs may differ in length:
    each epoch counts the runs that have a finite value there.

    Args:
        group (Group): The runs.
        key (str): A key of their logs.

    Returns:
        tuple of numpy.ndarray: Epochs, means and sample standard deviations,
        float64 arrays of one shape ``(E,)``. The deviation is 0 where a single
        run has a value.
    """
    values: dict[float, list[float]] = {}
    for run in group.runs:
        epochs, series = run.series(key)
        finite = np.isfinite(series)
        for epoch in np.unique(epochs[finite]):
            mean = series[finite & (epochs == epoch)].mean()
            values.setdefault(float(epoch), []).append(float(mean))
    epochs = sorted(values)
    means = [np.mean(values[epoch]) for epoch in epochs]
    stds = [
        np.std(values[epoch], ddof=1) if len(values[epoch]) > 1 else 0.0
        for epoch in epochs
    ]
    return np.array(epochs), np.array(means), np.array(stds)


def plot_curves(groups: Sequence[Group]) -> Figure:
    """Draws validation accuracy and losses, one colour a group.

    Args:
        groups (sequence of Group): The settings.

    Returns:
        matplotlib.figure.Figure: A figure that is independent of
        ``matplotlib.pyplot``: no global state or backend changes.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = 2 if max(len(group.label) for group in groups) < 50 else 1
    legend_rows = -(-len(groups) // columns)
    figure = Figure(figsize=(10, 4.6 + 0.22 * legend_rows), layout="constrained")
    left, right = figure.subplots(1, 2)
    handles = []
    for i, group in enumerate(groups):
        color = OKABE_ITO[i % len(OKABE_ITO)]
        marker = _MARKERS[i // len(OKABE_ITO) % len(_MARKERS)]
        _plot_mean(left, group, VALIDATION_ACCURACY, color, marker, "-")
        _plot_mean(right, group, VALIDATION_LOSS, color, marker, "-")
        _plot_mean(right, group, TRAINING_LOSS, color, marker, "--")
        n = len(group.runs)
        label = f"{group.label} ({n} run{'s' if n > 1 else ''})"
        handles.append(Line2D([], [], color=color, marker=marker, label=label))
    left.set_title("Validation accuracy")
    right.set_title("Loss: validation (solid) and training (dashed)")
    left.set_ylabel("accuracy")
    right.set_ylabel("loss")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
    figure.legend(
        handles=handles, loc="outside upper center", ncols=columns, frameon=False
    )
    figure.supxlabel(_NOTE, fontsize="small", color="#444444")
    return figure


def save_curves(groups: Sequence[Group], path: str | os.PathLike[str]) -> None:
    """Draws the curves of some groups into a PNG file.

    Args:
        groups (sequence of Group): The settings.
        path (path): The file, whose folder exists.
    """
    save_figure(plot_curves(groups), path)


def _plot_mean(
    axes: Axes, group: Group, key: str, color: str, marker: str, line: str
) -> None:
    epochs, means, stds = mean_curve(group, key)
    if len(epochs) == 1:
        marker = marker or "o"  # a line of one point is invisible
    style = {"color": color, "marker": marker, "markevery": max(1, len(epochs) // 10)}
    axes.plot(epochs, means, linestyle=line, **style)
    if (stds > 0).any():
        axes.fill_between(
            epochs, means - stds, means + stds, color=color, alpha=0.2, linewidth=0
        )
