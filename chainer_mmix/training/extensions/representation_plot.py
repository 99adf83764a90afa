from __future__ import annotations

import functools

import chainer

from chainer_mmix.analysis.hidden import check_layer
from chainer_mmix.analysis.representation import METHODS, representation
from chainer_mmix.training.extensions.predictor_evaluator import PredictorEvaluator


class RepresentationPlot(PredictorEvaluator):
    """Draws the hidden states at one place of a network as points in a plane.

    t-SNE of thousands of samples takes minutes: give it a few hundred, or a trigger
    such as ``(10, "epoch")``. Without Matplotlib there is a warning in place of the
    picture.

    Args:
        iterator, target, layer, args, options: See
            :class:`~chainer_mmix.training.extensions.SingularValuePlot`.
        method (str): ``"none"`` for states of two dimensions, as they are; ``"pca"``
            for the first two principal components (the default), ``"tsne"`` for t-SNE.
        filename (str): Name of the file in the output folder. The default is
            ``representation_<layer>.png``, with ``-`` for slashes.

    Raises:
        ValueError: If there is no such method or place.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        layer: int | str,
        *args,
        method: str = "pca",
        filename: str | None = None,
        **options,
    ) -> None:
        if method not in METHODS:
            raise ValueError(
                f"method must be one of {', '.join(METHODS)}, not {method!r}"
            )
        filename = filename or f"representation_{layer}.png".replace("/", "-")
        measure = functools.partial(
            representation, layer=layer, method=method, filename=filename
        )
        super().__init__(iterator, target, measure, *args, **options)
        check_layer(target.predictor, layer)
