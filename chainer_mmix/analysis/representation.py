"""Hidden states as points in a plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from chainer_mmix.analysis.figure import add_class_legend, scatter_classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("none", "pca", "tsne")


def project(states: np.ndarray, method: str) -> tuple[np.ndarray, tuple[str, str]]:
    """Makes points in a plane of hidden states.

    Args:
        states (numpy.ndarray): Array of shape (N, D).
        method (str): ``"none"`` for the states themselves, which must have two
            dimensions then; ``"pca"`` for their principal components, ``"tsne"`` for
            t-SNE, both by scikit-learn and both the same each time.

    Returns:
        tuple: An array of shape (N, 2), and what its columns are.

    Raises:
        ValueError: If there is no such method, or the states have more than two
            dimensions, or fewer.
    """
    d = states.shape[1]
    if method == "none":
        if d != 2:
            raise ValueError(
                f"the states have {d} dimensions, not 2: choose one of the methods "
                "'pca' and 'tsne'"
            )
        return states, ("unit 0", "unit 1")
    if method == "pca":
        from sklearn.decomposition import PCA

        pca = PCA(2, svd_solver="full").fit(states)
        names = [
            f"principal component {k} ({share:.0%} of the variance)"
            for k, share in enumerate(pca.explained_variance_ratio_, 1)
        ]
        return pca.transform(states), tuple(names)
    if method == "tsne":
        from sklearn.manifold import TSNE

        # The usual 30, where there are enough neighbours.
        perplexity = min(30, (len(states) - 1) / 3)
        tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=0)
        return tsne.fit_transform(states), ("t-SNE 1", "t-SNE 2")
    raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")


def plot_points(
    points: np.ndarray,
    t: np.ndarray,
    names: tuple[str, str] = ("", ""),
    title: str = "",
) -> Figure:
    """Draws points, each class in a colour and by a marker of its own.

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
