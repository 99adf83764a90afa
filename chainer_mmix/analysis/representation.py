"""Hidden states as points in a plane."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import chainer
import numpy as np

from chainer_mmix.analysis.figure import add_class_legend, picture, scatter_classes
from chainer_mmix.analysis.findings import Findings
from chainer_mmix.analysis.hidden import all_hidden_states, is_finite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("none", "pca", "tsne")


def representation(
    classifier: chainer.Link,
    batches: Iterable[tuple],
    layer: int | str,
    method: str = "pca",
    filename: str = "representation.png",
) -> Findings:
    """Draws the hidden states at a place as points in a plane.

    Args:
        classifier, batches, layer: See
            :func:`~chainer_mmix.analysis.hidden.all_hidden_states`.
        method (str): See :func:`project`.
        filename (str): Name of the picture. There is none, with a warning, if a state
            is NaN or infinite.
    """
    states, t = all_hidden_states(classifier, batches, layer)
    check_method(method, states.shape[1])
    if not is_finite(states, layer):
        return Findings({})

    def plot() -> Figure:
        title = f"Hidden states at layer {layer!r}"
        points, names = project(states, method)
        return plot_points(points, t, names, title)

    return Findings({}, {filename: picture(plot)})


def check_method(method: str, d: int) -> None:
    """Raises a ValueError if states of D dimensions cannot be projected so."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if method == "none" and d != 2:
        raise ValueError(
            f"the states have {d} dimensions, not 2: choose one of the methods "
            "'pca' and 'tsne'"
        )
    if d < 2:
        raise ValueError(f"states of {d} dimension make no plane: choose another layer")


def project(states: np.ndarray, method: str) -> tuple[np.ndarray, tuple[str, str]]:
    """Projects hidden states onto a plane.

    Args:
        states (numpy.ndarray): Array of shape (N, D).
        method (str): ``"none"`` for the states themselves, which must have two
            dimensions then; ``"pca"`` for their principal components, ``"tsne"`` for
            t-SNE, both by scikit-learn and both the same each time. A single state is
            at the origin.

    Returns:
        tuple: An array of shape (N, 2), and what its columns are.

    Raises:
        ValueError: If there is no such method, or the states have more than two
            dimensions, or fewer.
    """
    check_method(method, states.shape[1])
    if method == "none":
        return states, ("unit 0", "unit 1")
    if len(states) < 2:  # which scikit-learn refuses
        return np.zeros((len(states), 2)), ("", "")
    if method == "pca":
        from sklearn.decomposition import PCA

        pca = PCA(2, svd_solver="full").fit(states)
        names = [
            f"principal component {k} ({share:.0%} of the variance)"
            for k, share in enumerate(pca.explained_variance_ratio_, 1)
        ]
        return pca.transform(states), tuple(names)
    from sklearn.manifold import TSNE

    # The usual 30, where there are enough neighbours.
    perplexity = min(30, (len(states) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=0)
    return tsne.fit_transform(states), ("t-SNE 1", "t-SNE 2")


def plot_points(
    points: np.ndarray,
    t: np.ndarray,
    names: tuple[str, str] = ("", ""),
    title: str = "",
) -> Figure:
    """Draws points, each class with its own colour and marker.

    Args:
        points (numpy.ndarray): Array of shape (N, 2).
        t (numpy.ndarray): Labels, integers of shape (N,).
        names (tuple of str): What the columns are.
        title (str): What the points are.

    Returns:
        matplotlib.figure.Figure: The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5.5), layout="constrained")
    axes = figure.subplots()
    scatter_classes(axes, points, t, size=26)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    axes.set_title(title)
    add_class_legend(axes, np.unique(t).tolist())
    return figure
