from __future__ import annotations

from collections.abc import Callable, Sequence

import chainer
import numpy as np
from chainer.dataset import concat_examples

from chainer_mmix.analysis.fgsm import fgsm, gradient_sign
from chainer_mmix.analysis.predictions import labels_of, predict
from chainer_mmix.training.extensions.predictor_evaluator import PredictorEvaluator


class FgsmEvaluator(PredictorEvaluator):
    r"""Reports the accuracy under attack by the fast gradient sign method.

    For each :math:`\epsilon` it reports ``fgsm_accuracy/<eps>``. The attacker knows the
    network, its loss function and the label, and takes one step:
    :math:`x + \epsilon\,\mathrm{sign}(\nabla_x L)`. The predictor takes one input.

    It says how flat the loss is around the data, as the paper uses it, not that a
    network is safe: attacks of many steps are stronger.

    Args:
        iterator, target, converter, device: See
            :class:`~chainer_mmix.training.extensions.PredictorEvaluator`.
        eps (sequence of float): All :math:`\epsilon`, in the units of the inputs. The
            default suits images in [0, 1].
        clip (tuple of float): The range of the inputs, such as ``(0, 1)``, which the
            attack may not leave; ``None``, the default, for no such range.

    Raises:
        ValueError: If an ``eps`` is negative, NaN or infinite.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        converter: Callable = concat_examples,
        device=None,
        eps: Sequence[float] = (0.01, 0.03, 0.1),
        clip: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(iterator, target, converter, device)
        for value in eps:
            if not 0 <= value < np.inf:
                raise ValueError(f"eps must be finite numbers >= 0, not {value}")
        self._eps = tuple(eps)
        self._clip = clip

    def measure(self, target: chainer.Link) -> dict[str, float]:
        n, n_right = 0, dict.fromkeys(self._eps, 0)
        for x, t in self.batches():
            direction = gradient_sign(target.predictor, x, t, target.lossfun)
            n += len(t)
            for eps in self._eps:
                scores = predict(target.predictor, fgsm(x, direction, eps, self._clip))
                right = scores.argmax(axis=1) == labels_of(t)
                n_right[eps] += int(right.sum())
        return {f"fgsm_accuracy/{eps:g}": n_right[eps] / n for eps in self._eps}
