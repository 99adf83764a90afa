"""The confidence of a classifier of two classes over a plane."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import chainer
import numpy as np
from scipy.special import softmax

from chainer_mmix.analysis.figure import picture
from chainer_mmix.analysis.findings import Findings
from chainer_mmix.analysis.predictions import (
    ignored_by,
    labels_of,
    one_input,
    predict,
    to_host,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

# Points at a time.
_CHUNK = 10000


class ConfidenceMap(NamedTuple):
    """The probability of class 0 over a rectangle.

    Attributes:
        x (numpy.ndarray): The first input of each column, W numbers.
        y (numpy.ndarray): The second input of each row, H numbers.
        probability (numpy.ndarray): The probability of class 0, of shape (H, W).
    """

    x: np.ndarray
    y: np.ndarray
    probability: np.ndarray


def decision_boundary(
    classifier: chainer.Link,
    batches: Iterable[tuple],
    resolution: int = 200,
    filename: str = "decision_boundary.png",
) -> Findings:
    """Measures ``unsure``, the share of the plane below 0.9 confidence, and draws it.

    Args:
        classifier (~chainer.Link): A link with a predictor.
        batches (iterable of tuple): Points of shape (N, 2), and labels, 0 and 1.
        resolution (int): Columns and rows of the map. The default is 200.
        filename (str): Name of the picture.

    Raises:
        TypeError: If there are several inputs, or not one class a sample, or the points
            are not floats.
        ValueError: As for :func:`confidence_map`, and for other labels.
    """
    found = [
        (to_host(one_input(x, "a decision boundary")), labels_of(t)) for x, t in batches
    ]
    points, labels = map(np.concatenate, zip(*found, strict=True))
    other = set(labels.tolist()) - {0, 1, ignored_by(classifier)}
    if other:
        raise ValueError(
            "a decision boundary is drawn between the classes 0 and 1, but there are "
            f"labels {', '.join(map(str, sorted(other)))}"
        )
    confidence = confidence_map(classifier.predictor, points, resolution)
    return Findings(
        {"unsure": unsure_share(confidence.probability)},
        {filename: picture(plot_boundary, confidence, points, labels)},
    )


def confidence_map(
    predictor: chainer.Link, points: np.ndarray, resolution: int = 200
) -> ConfidenceMap:
    """Computes the probability of class 0 around some points.

    Args:
        predictor (~chainer.Link): A network that gives scores of two classes.
        points (numpy.ndarray): Float array of shape (N, 2). The map is their bounding
            box with a fifth of its size added on each side.
        resolution (int): The number of columns and of rows. The default is 200.

    Raises:
        TypeError: If the points are not floats.
        ValueError: If the points are not in a plane, or there are not two classes.
    """
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(
            "a decision boundary is drawn for inputs of shape (N, 2), not "
            f"{points.shape}"
        )
    if points.dtype.kind != "f":
        raise TypeError(
            f"the points are of dtype {points.dtype}, which has no numbers between "
            "them: make them float32"
        )
    low, high = (end.astype(np.float64) for end in (points.min(0), points.max(0)))
    margin = (high - low) / 5
    x, y = np.linspace(low - margin, high + margin, resolution).T
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(points.dtype)
    scores = [
        predict(predictor, predictor.device.send(grid[start : start + _CHUNK]))
        for start in range(0, len(grid), _CHUNK)
    ]
    scores = np.concatenate(scores).astype(np.float64)
    if scores.shape[1:] != (2,):
        raise ValueError(
            "a decision boundary is drawn between two classes, but "
            f"{type(predictor).__name__} gives scores of shape {scores.shape}"
        )
    probability = softmax(scores, axis=1)[:, 0]
    return ConfidenceMap(x, y, probability.reshape(resolution, resolution))


def unsure_share(probability: np.ndarray, threshold: float = 0.9) -> float:
    """Returns the share of a map whose confidence is below a threshold.

    Args:
        probability (numpy.ndarray): The probability of one of two classes.
        threshold (float): The default is 0.9.

    Returns:
        float: The share; NaN if a probability is NaN.
    """
    confidence = np.maximum(probability, 1 - probability)
    return (
        np.nan if np.isnan(confidence).any() else float((confidence < threshold).mean())
    )


def plot_boundary(
    map: ConfidenceMap, points: np.ndarray, t: np.ndarray, title: str = ""
) -> Figure:
    """Draws a confidence map: class 0 yellow, class 1 purple, unsure green.

    Args:
        map (ConfidenceMap): The map.
        points (numpy.ndarray): Points to draw over it, of shape (N, 2).
        t (numpy.ndarray): Their labels, 0 and 1, of shape (N,).
        title (str): What it is. The share that is unsure is added.

    Returns:
        matplotlib.figure.Figure: The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 5.8), layout="constrained")
    axes = figure.subplots()
    image = draw_boundary(axes, map, points, t)
    axes.set_xlabel("input 0")
    axes.set_ylabel("input 1")
    share = f"{unsure_share(map.probability):.1%} of the map below 0.9 confidence"
    axes.set_title(f"{title}\n{share}" if title else share)
    figure.colorbar(image, label="probability of class 0 (white line: 0.5)")
    legend = figure.legend(loc="outside lower center", ncols=2, frameon=True)
    legend.get_frame().set(facecolor="#888888", edgecolor="none")
    return figure


def draw_boundary(
    axes: Axes, map: ConfidenceMap, points: np.ndarray, t: np.ndarray, size: float = 30
) -> QuadMesh:
    """Draws a confidence map and points over it.

    Args:
        axes (matplotlib.axes.Axes): Where to draw.
        map, points, t: See :func:`plot_boundary`.
        size (float): Area of a marker, in square points. The default is 30.

    Returns:
        matplotlib.collections.QuadMesh: The map, for a colour bar.
    """
    from matplotlib import colormaps

    # Viridis has the colours, and its brightness tells them apart as well.
    image = axes.pcolormesh(*map, cmap="viridis", vmin=0, vmax=1, shading="nearest")
    # Older versions of Matplotlib warn where there is no line.
    if map.probability.min() < 0.5 < map.probability.max():
        axes.contour(*map, levels=[0.5], colors="white", linewidths=1.5)
    viridis = colormaps["viridis"]
    for label, marker, color, edge in (
        (0, "o", viridis(1.0), "black"),
        (1, "^", viridis(0.0), "white"),
    ):
        axes.scatter(
            *points[t == label].T,
            s=size,
            marker=marker,
            color=[color],
            edgecolors=edge,
            linewidths=0.8,
            label=f"class {label}",
        )
    return image
