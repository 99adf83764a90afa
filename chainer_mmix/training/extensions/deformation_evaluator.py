from __future__ import annotations

import functools
from collections.abc import Sequence

import chainer

from chainer_mmix.analysis.deform import DEFORMATIONS, check_kind, deformed_accuracy
from chainer_mmix.training.extensions.predictor_evaluator import PredictorEvaluator


class DeformationEvaluator(PredictorEvaluator):
    """Reports the accuracy on images that are rotated, sheared and zoomed.

    For each deformation it reports ``deformed_accuracy/<kind>_<amount>``, such as
    ``deformed_accuracy/rotation_20``. :func:`~chainer_mmix.analysis.deform.deform`
    defines them. An image is deformed alike each time. Labels that the classifier's
    accuracy or loss ignores do not count.

    It evaluates as often as there are deformations: a trigger such as ``(10, "epoch")``
    saves time.

    Source: Table 4 of arXiv 1806.05236.

    Args:
        iterator, target, args, options: The arguments of
            :class:`~chainer_mmix.training.extensions.PredictorEvaluator` but
            ``measure``. The predictor takes one input, images of shape (C, H, W), and
            keeps no state.
        deformations (sequence of tuple): Pairs of a kind (``"rotation"``, ``"shear"``,
            ``"zoom"``) and an amount. The default are the eight of the paper.
        seed (int): For the angles, which are drawn from a range. The default is 0.

    Raises:
        ValueError: If there is no such kind.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        *args,
        deformations: Sequence[tuple[str, float]] = DEFORMATIONS,
        seed: int = 0,
        **options,
    ) -> None:
        for kind, _ in deformations:
            check_kind(kind)
        measure = functools.partial(
            deformed_accuracy, deformations=tuple(deformations), seed=seed
        )
        super().__init__(iterator, target, measure, *args, **options)
