from __future__ import annotations

from collections.abc import Callable

import chainer
from chainer.dataset import concat_examples

from chainer_mmix.analysis.representation import METHODS, plot_points, project
from chainer_mmix.training.extensions.layer_plot import LayerPlot


class RepresentationPlot(LayerPlot):
    """Draws the hidden states at one place of a network as points in a plane.

    t-SNE of thousands of samples takes minutes: give it a few hundred, or a trigger
    such as ``(10, "epoch")``.

    Args:
        iterator, target, layer, converter, device: See
            :class:`~chainer_mmix.training.extensions.LayerPlot`.
        method (str): ``"none"`` for states of two dimensions, as they are; ``"pca"``
            for the first two principal components (the default), ``"tsne"`` for t-SNE.
        filename (str): Name of the file in the output folder. The default is
            ``representation_<layer>.png``, with ``-`` for slashes.

    Raises:
        ValueError: If there is no such method, and as for the base class.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        layer: int | str,
        converter: Callable = concat_examples,
        device=None,
        method: str = "pca",
        filename: str | None = None,
    ) -> None:
        if method not in METHODS:
            raise ValueError(
                f"method must be one of {', '.join(METHODS)}, not {method!r}"
            )
        filename = filename or f"representation_{layer}.png".replace("/", "-")
        super().__init__(iterator, target, layer, converter, device, filename)
        self._method = method

    def measure(self, target: chainer.Link) -> dict[str, float]:
        if self.available():
            states, labels = self.states(target)
            points, names = project(states, self._method)
            title = f"Hidden states at layer {self._layer!r}"
            self.draw(plot_points, points, labels, names, title)
        return {}
