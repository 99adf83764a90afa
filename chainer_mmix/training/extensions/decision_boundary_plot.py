from __future__ import annotations

import functools

import chainer

from chainer_mmix.analysis.boundary import decision_boundary
from chainer_mmix.training.extensions.predictor_evaluator import PredictorEvaluator


class DecisionBoundaryPlot(PredictorEvaluator):
    """Draws the confidence of a classifier of points in a plane.

    Class 0 is yellow, class 1 purple, and regions of low confidence are green. The
    share of the picture with a confidence below 0.9 is reported as ``unsure``. Without
    Matplotlib, there is a warning in place of the picture.

    Source: the spirals of arXiv 1806.05236, figure 1.

    Args:
        iterator, target, args, options: The arguments of
            :class:`~chainer_mmix.training.extensions.PredictorEvaluator` but
            ``measure``. The inputs are of shape (2,), the labels 0 and 1, and the
            predictor returns two scores. All examples are drawn as points.
        resolution (int): Columns and rows of the map. The default is 200.
        filename (str): Name of the file in the output folder. The default is
            ``decision_boundary.png``.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        *args,
        resolution: int = 200,
        filename: str = "decision_boundary.png",
        **options,
    ) -> None:
        measure = functools.partial(
            decision_boundary, resolution=resolution, filename=filename
        )
        super().__init__(iterator, target, measure, *args, **options)
