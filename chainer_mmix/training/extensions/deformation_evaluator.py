from __future__ import annotations

from collections.abc import Callable, Sequence

import chainer
import numpy as np
from chainer.dataset import concat_examples

from chainer_mmix.analysis.deform import DEFORMATIONS, check_kind, deform
from chainer_mmix.analysis.predictions import labels_of, predict, to_host
from chainer_mmix.training.extensions.predictor_evaluator import PredictorEvaluator


class DeformationEvaluator(PredictorEvaluator):
    """Reports the accuracy on images that are rotated, sheared and zoomed.

    For each deformation it reports ``deformed_accuracy/<kind>_<amount>``, such as
    ``deformed_accuracy/rotation_20``. :func:`~chainer_mmix.analysis.deform.deform`
    defines them. An image is deformed alike each time.

    It evaluates as often as there are deformations: a trigger such as ``(10, "epoch")``
    saves time.

    Source: Table 4 of arXiv 1806.05236.

    Args:
        iterator, target, converter, device: See
            :class:`~chainer_mmix.training.extensions.PredictorEvaluator`. The
            predictor takes one input, images of shape (C, H, W).
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
        converter: Callable = concat_examples,
        device=None,
        deformations: Sequence[tuple[str, float]] = DEFORMATIONS,
        seed: int = 0,
    ) -> None:
        super().__init__(iterator, target, converter, device)
        for kind, _ in deformations:
            check_kind(kind)
        self._deformations = tuple(deformations)
        self._seed = seed

    def measure(self, target: chainer.Link) -> dict[str, float]:
        n, n_right = 0, dict.fromkeys(self._deformations, 0)
        rngs = {d: np.random.default_rng(self._seed) for d in self._deformations}
        for x, t in self.batches():
            n += len(t)
            images = to_host(x)
            device = chainer.backend.get_device_from_array(x)
            for deformation, rng in rngs.items():
                deformed = device.send(deform(images, *deformation, rng))
                scores = predict(target.predictor, deformed)
                right = scores.argmax(axis=1) == labels_of(t)
                n_right[deformation] += int(right.sum())
        return {
            f"deformed_accuracy/{kind}_{amount:g}": count / n
            for (kind, amount), count in n_right.items()
        }
