from __future__ import annotations

from collections.abc import Callable

import chainer
from chainer.dataset import concat_examples

from chainer_mmix.analysis.singular_values import (
    plot_singular_values,
    singular_values,
    spread,
)
from chainer_mmix.training.extensions.layer_plot import LayerPlot


class SingularValuePlot(LayerPlot):
    """Draws the singular values of the hidden states of each class.

    Manifold Mixup makes them small but for the first few: the states of a class lie in
    few directions. The sum of all but the largest, on average over the classes, is
    reported as ``spread/<layer>``. :mod:`chainer_mmix.analysis.singular_values`
    defines both.

    Args:
        iterator, target, layer, converter, device: See
            :class:`~chainer_mmix.training.extensions.LayerPlot`.
        filename (str): Name of the file in the output folder. The default is
            ``singular_values_<layer>.png``, with ``-`` for slashes.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        layer: int | str,
        converter: Callable = concat_examples,
        device=None,
        filename: str | None = None,
    ) -> None:
        filename = filename or f"singular_values_{layer}.png".replace("/", "-")
        super().__init__(iterator, target, layer, converter, device, filename)

    def measure(self, target: chainer.Link) -> dict[str, float]:
        values = singular_values(*self.states(target))
        self.draw(
            plot_singular_values, values, f"Hidden states at layer {self._layer!r}"
        )
        return {f"spread/{self._layer}": spread(values)}
