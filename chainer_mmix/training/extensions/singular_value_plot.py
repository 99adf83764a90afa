from __future__ import annotations

import functools

import chainer

from chainer_mmix.analysis.hidden import check_layer
from chainer_mmix.analysis.singular_values import hidden_spread
from chainer_mmix.training.extensions.predictor_evaluator import PredictorEvaluator


class SingularValuePlot(PredictorEvaluator):
    """Draws the singular values of the hidden states of each class.

    In the paper, Manifold Mixup makes all but the first few small, so that the states
    of a class lie in few directions. The sum of all but the largest, on average over
    the classes, is reported as ``spread/<layer>``.
    :mod:`chainer_mmix.analysis.singular_values` defines both. Without Matplotlib there
    is a warning in place of the picture.

    Args:
        iterator, target, args, options: The arguments of
            :class:`~chainer_mmix.training.extensions.PredictorEvaluator` but
            ``measure``. The targets are one label a sample, or probabilities of all
            classes.
        layer (int or str): The place: a mixing point of the predictor, the name of any
            link of it, as for :class:`~chainer_mmix.MixupLayers`, or ``"input"``.
        filename (str): Name of the file in the output folder. The default is
            ``singular_values_<layer>.png``, with ``-`` for slashes.

    Raises:
        ValueError: If the predictor has no such place.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        layer: int | str,
        *args,
        filename: str | None = None,
        **options,
    ) -> None:
        filename = filename or f"singular_values_{layer}.png".replace("/", "-")
        measure = functools.partial(hidden_spread, layer=layer, filename=filename)
        super().__init__(iterator, target, measure, *args, **options)
        check_layer(target.predictor, layer)
