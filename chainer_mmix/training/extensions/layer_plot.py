from __future__ import annotations

from collections.abc import Callable

import chainer
import numpy as np
from chainer.dataset import concat_examples

from chainer_mmix.analysis.hidden import check_layer, hidden_states
from chainer_mmix.analysis.predictions import labels_of
from chainer_mmix.training.extensions.predictor_plot import PredictorPlot


class LayerPlot(PredictorPlot):
    """Base of evaluators that draw the hidden states at one place of a network.

    Args:
        iterator, target, converter, device: See
            :class:`~chainer_mmix.training.extensions.PredictorEvaluator`. The targets
            of the examples are labels or, one a class, probabilities.
        layer (int or str): The place: a mixing point of the predictor, the name of any
            link of it, as for :class:`~chainer_mmix.MixupLayers`, or ``"input"``.
        filename (str): Name of the PNG file in the output folder.

    Raises:
        ValueError: If the predictor has no such place.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        layer: int | str,
        converter: Callable = concat_examples,
        device=None,
        filename: str = "plot.png",
    ) -> None:
        super().__init__(iterator, target, converter, device, filename)
        check_layer(target.predictor, layer)
        self._layer = layer

    def states(self, target: chainer.Link) -> tuple[np.ndarray, np.ndarray]:
        """Returns the states of all examples, of shape (N, D), and their labels."""
        states, labels = [], []
        for x, t in self.batches():
            states.append(hidden_states(target.predictor, self._layer, x, t))
            labels.append(labels_of(t))
        return np.concatenate(states), np.concatenate(labels)
