"""Draws the learning curves of training runs."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainer_mmix.analysis.figure import OKABE_ITO, save_figure
from chainer_mmix.runs.compare import Spread
from chainer_mmix.runs.groups import Group
from chainer_mmix.runs.metric import Metric
from chainer_mmix.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by their markers when there are more groups than colours.
_MARKERS = ("", "o", "s", "^")
# Characters of a legend's label that a figure has room for, beside another or alone.
_HALF_LINE, _LINE = 54, 115
_WRAPPER = textwrap.TextWrapper(_LINE, break_on_hyphens=False)
CURVES_NOTE = (
    "Lines: mean over the runs of a setting; bands: ± one sample standard deviation.\n"
    "Training loss under mixing is measured against mixed targets: compare it neither "
    "between settings nor with the loss on held-out data."
)


def mean_curve(
    group: Group, key_of: Callable[[Run], str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Averages one number of the logs over a group's runs, epoch by epoch.

    Several entries of one epoch are averaged first. Runs may differ in length:
    each epoch counts the runs that have a finite value there.

    Args:
        group (Group): The runs.
        key_of (callable): Returns the key of the number in the log of a run.

    Returns:
        tuple of numpy.ndarray: Epochs, means and sample standard deviations,
        float64 arrays of one shape ``(E,)``. The deviation is 0 where a single
        run has a value.
    """
    values: dict[float, list[float]] = {}
    for run in group.runs:
        epochs, series = run.series(key_of(run))
        finite = np.isfinite(series)
        for epoch in np.unique(epochs[finite]):
            mean = series[finite & (epochs == epoch)].mean()
            values.setdefault(float(epoch), []).append(float(mean))
    spreads = [Spread.of(values[epoch]) for epoch in sorted(values)]
    means = [spread.mean for spread in spreads]
    stds = [spread.std or 0.0 for spread in spreads]
    return np.array(sorted(values)), np.array(means), np.array(stds)


def plot_curves(groups: Sequence[Group], metric: Metric) -> Figure:
    """Draws a metric and the losses, one colour a group.

    Args:
        groups (sequence of Group): The settings.
        metric (Metric): By which number they are compared.

    Returns:
        matplotlib.figure.Figure: A figure that is independent of
        ``matplotlib.pyplot``: no global state or backend changes.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = []
    for group in groups:
        n = len(group.runs)
        names.append(f"{group.label} ({n} run{'s' if n > 1 else ''})")
    columns = 2 if max(map(len, names)) <= _HALF_LINE else 1
    lines = [_WRAPPER.wrap(name) for name in names]
    height = 4.6 + 0.2 * sum(map(len, lines)) / columns
    figure = Figure(figsize=(10, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_metric(left, groups, metric)
    draw_losses(right, groups, metric)
    figure.legend(
        handles=[
            Line2D([], [], label="\n".join(text), **group_style(i))
            for i, text in enumerate(lines)
        ],
        loc="outside upper center",
        ncols=columns,
        fontsize="small",
        frameon=False,
    )
    figure.supxlabel(CURVES_NOTE, fontsize="small", color="#444444")
    return figure


def draw_metric(axes: Axes, groups: Sequence[Group], metric: Metric) -> None:
    """Draws the metric of some settings."""
    for i, group in enumerate(groups):
        _plot_mean(axes, group, metric.keys.__getitem__, group_style(i), "-")
    axes.set_title(metric.title)
    axes.set_ylabel(metric.name)
    _draw_epochs(axes)


def draw_losses(axes: Axes, groups: Sequence[Group], metric: Metric) -> None:
    """Draws the losses of some settings."""
    for i, group in enumerate(groups):
        _plot_mean(axes, group, metric.loss_key, group_style(i), "-")
        _plot_mean(axes, group, metric.training_loss_key, group_style(i), "--")
    held_out = metric.held_out or "validation"
    axes.set_title(f"Loss: {held_out} (solid) and training (dashed)")
    axes.set_ylabel("loss")
    _draw_epochs(axes)


def group_style(i: int) -> dict[str, Any]:
    """Returns the colour and the marker of the lines of the i-th setting."""
    return {
        "color": OKABE_ITO[i % len(OKABE_ITO)],
        "marker": _MARKERS[i // len(OKABE_ITO) % len(_MARKERS)],
    }


def save_curves(
    groups: Sequence[Group], metric: Metric, path: str | os.PathLike[str]
) -> None:
    """Draws the curves of some groups into a PNG file.

    Args:
        groups (sequence of Group): The settings.
        metric (Metric): By which number they are compared.
        path (path-like): The file, whose folder exists.
    """
    save_figure(plot_curves(groups, metric), path)


def _draw_epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.locator_params("x", integer=True, min_n_ticks=1)
    axes.grid(alpha=0.3)


def _plot_mean(
    axes: Axes,
    group: Group,
    key_of: Callable[[Run], str],
    style: dict[str, Any],
    line: str,
) -> None:
    epochs, means, stds = mean_curve(group, key_of)
    color, marker = style["color"], style["marker"]
    if len(epochs) == 1:
        marker = marker or "o"  # a line of one point is invisible
    axes.plot(
        epochs,
        means,
        linestyle=line,
        color=color,
        marker=marker,
        markevery=max(1, len(epochs) // 10),
    )
    if (stds > 0).any():
        axes.fill_between(
            epochs, means - stds, means + stds, color=color, alpha=0.2, linewidth=0
        )
