from __future__ import annotations

from collections.abc import Callable

import chainer
import numpy as np
from chainer.dataset import concat_examples

from chainer_mmix.analysis.boundary import (
    confidence_map,
    plot_boundary,
    unsure_share,
)
from chainer_mmix.analysis.predictions import labels_of, to_host
from chainer_mmix.training.extensions.predictor_plot import PredictorPlot


class DecisionBoundaryPlot(PredictorPlot):
    """Draws how sure a classifier of points in a plane is, and where.

    Class 0 is yellow, class 1 purple, and where the network is unsure, green. The share
    of the picture with a confidence below 0.9 is reported as ``unsure``.

    Source: the spirals of arXiv 1806.05236, figure 1.

    Args:
        iterator, target, converter, device: See
            :class:`~chainer_mmix.training.extensions.PredictorEvaluator`. The inputs
            are of shape (2,), the labels 0 and 1. All examples are drawn as points.
        resolution (int): Columns and rows of the map. The default is 200.
        filename (str): Name of the file in the output folder. The default is
            ``decision_boundary.png``.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        converter: Callable = concat_examples,
        device=None,
        resolution: int = 200,
        filename: str = "decision_boundary.png",
    ) -> None:
        super().__init__(iterator, target, converter, device, filename)
        self._resolution = resolution

    def measure(self, target: chainer.Link) -> dict[str, float]:
        batches = [(to_host(x), labels_of(t)) for x, t in self.batches()]
        points, labels = map(np.concatenate, zip(*batches, strict=True))
        confidence = confidence_map(target.predictor, points, self._resolution)
        self.draw(plot_boundary, confidence, points, labels)
        return {"unsure": unsure_share(confidence.probability)}
