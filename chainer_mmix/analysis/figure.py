"""Colours, legends and files of all figures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from chainer.training.extensions import PlotReport

from chainer_revive.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008): eight colours that remain
# distinct for colour-blind readers; yellow last, as it is faint on white.
OKABE_ITO = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73"),
    *("#0072B2", "#D55E00", "#CC79A7", "#F0E442"),
)
_MARKERS = "os^DvXP*<>"


def shortened(name: str, longest: int) -> str:
    """Returns a name for which there is room for so many characters."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def class_style(label: int) -> dict[str, str]:
    """Returns the colour and the marker by which a class is drawn.

    The first 70 classes differ in colour or marker, the first seven in both.
    """
    # Without yellow.
    return {"color": OKABE_ITO[label % 7], "marker": _MARKERS[label % 10]}


def scatter_classes(axes: Axes, points: np.ndarray, t: np.ndarray, size: float) -> None:
    """Draws points, each class in its style, and its number amid them.

    Args:
        axes (matplotlib.axes.Axes): Where to draw.
        points (numpy.ndarray): Array of shape (N, 2).
        t (numpy.ndarray): Labels, integers of shape (N,).
        size (float): Area of a marker, in square points.
    """
    from matplotlib.patheffects import withStroke

    labels = np.unique(t).tolist()
    for label in labels:
        own = points[t == label]
        axes.scatter(*own.T, s=size, alpha=0.8, linewidths=0, **class_style(label))
    # More of them would hide the points.
    for label in labels if len(labels) <= 20 else ():
        axes.text(
            *np.median(points[t == label], axis=0),
            str(label),
            ha="center",
            va="center",
            fontweight="bold",
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )


def add_class_legend(axes: Axes, labels: Iterable[int]) -> None:
    """Adds a legend of the classes to the right of a plot, and room for it."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", label=str(label), **class_style(label))
        for label in labels
    ]
    n_columns = -(-len(handles) // 20)
    figure = axes.figure
    figure.set_figwidth(figure.get_figwidth() + 0.8 * (n_columns - 1))
    figure.legend(
        handles=handles,
        title="class",
        loc="outside right upper",
        ncols=n_columns,
        fontsize="small",
        frameon=False,
    )


def picture(plot: Callable[..., Figure], *args) -> Callable[[Path], None]:
    """Returns a function that draws ``plot(*args)`` into a file.

    Without Matplotlib there is a warning in place of it, as with
    :class:`~chainer.training.extensions.PlotReport`.
    """

    def write(path: Path) -> None:
        if PlotReport.available():
            save_figure(plot(*args), path)

    return write


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure into a PNG file, which appears when it is complete.

    Args:
        figure (matplotlib.figure.Figure): A figure.
        path (str or path-like): The file, whose folder exists.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with write_atomically(path, "wb") as stream:
        FigureCanvasAgg(figure).print_png(stream)
