"""The number of directions in which the hidden states of a class spread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import chainer
import numpy as np

from chainer_mmix.analysis.figure import add_class_legend, class_style, picture
from chainer_mmix.analysis.findings import Findings
from chainer_mmix.analysis.hidden import all_hidden_states, is_finite

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def hidden_spread(
    classifier: chainer.Link,
    batches: Iterable[tuple],
    layer: int | str,
    filename: str = "singular_values.png",
) -> Findings:
    """Measures the spread of the hidden states at a place, and draws their values.

    Args:
        classifier, batches, layer: See
            :func:`~chainer_mmix.analysis.hidden.all_hidden_states`.
        filename (str): Name of the picture.

    Returns:
        Findings: ``spread/<layer>`` and the picture; NaN and none, with a warning, if a
        state is NaN or infinite.
    """
    states, t = all_hidden_states(classifier, batches, layer)
    if not is_finite(states, layer):
        return Findings({f"spread/{layer}": np.nan})
    values = singular_values(states, t)
    title = f"Hidden states at layer {layer!r}"
    draw = picture(plot_singular_values, values, title)
    return Findings({f"spread/{layer}": spread(values)}, {filename: draw})


def singular_values(states: np.ndarray, t: np.ndarray) -> dict[int, np.ndarray]:
    r"""Computes the singular values of the hidden states, class by class.

    The states of a class form a matrix of shape :math:`(N_c, D)`, not centred. Its
    singular values are divided by :math:`\sqrt{N_c}`, so that they do not grow with the
    number of samples: they are the root mean squares of the states along the singular
    vectors.

    Source: the class-specific representations of arXiv 1806.05236, section 3; there
    they are not divided.

    Args:
        states (numpy.ndarray): Array of shape (N, D).
        t (numpy.ndarray): Labels, integers of shape (N,).

    Returns:
        dict: For each label that occurs, a float64 array of as many values as there
        are samples of it or dimensions, the smaller of both; the largest comes first.
    """
    values = {}
    for label in np.unique(t):
        own = states[t == label].astype(np.float64)
        values[int(label)] = np.linalg.svd(own, compute_uv=False) / np.sqrt(len(own))
    return values


def spread(values: Mapping[int, np.ndarray]) -> float:
    """Sums all singular values of a class but the largest, on average over the classes.

    It is 0 where all states of a class lie in one direction: flat.

    Args:
        values (mapping): What :func:`singular_values` returns.
    """
    if not values:
        return np.nan
    return float(np.mean([v[1:].sum() for v in values.values()]))


def plot_singular_values(values: Mapping[int, np.ndarray], title: str = "") -> Figure:
    """Draws the singular values, one line a class, on a logarithmic scale.

    Values below a ten-thousandth of the largest are drawn there.

    Args:
        values (mapping): What :func:`singular_values` returns.
        title (str): What the states are.

    Returns:
        matplotlib.figure.Figure: The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    largest = max((v[0] for v in values.values()), default=1.0)
    floor = max(largest * 1e-4, np.finfo(float).tiny)
    for label, own in values.items():
        number = np.arange(1, len(own) + 1)
        axes.plot(
            number,
            np.maximum(own, floor),
            markevery=max(1, len(own) // 12),
            linewidth=1,
            markersize=5,
            **class_style(label),
        )
    axes.set_yscale("log")
    axes.set_xlabel("number of the singular value")
    axes.set_ylabel("singular value / √samples")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(
        f"{title}\nsum of all but the largest, mean over the classes: "
        f"{spread(values):.3g}",
        fontsize="medium",
    )
    axes.grid(alpha=0.3)
    add_class_legend(axes, values)
    return figure
