from __future__ import annotations

from collections.abc import Callable

import chainer
import numpy as np
from chainer.dataset import concat_examples

from chainer_mmix.analysis import calibration
from chainer_mmix.analysis.predictions import labels_of, predict
from chainer_mmix.training.extensions.predictor_evaluator import PredictorEvaluator


class CalibrationEvaluator(PredictorEvaluator):
    """Reports how far the probabilities of a classifier can be trusted.

    They are the softmax of what the predictor returns. Reported are

    - ``ece``: the expected calibration error, the mean distance between confidence and
      accuracy;
    - ``nll``: the negative log-likelihood;
    - ``brier``: the Brier score, from 0 to 2.

    :mod:`chainer_mmix.analysis.calibration` defines them. They are those of all
    examples together, not means over minibatches.

    Args:
        iterator, target, converter, device: See
            :class:`~chainer_mmix.training.extensions.PredictorEvaluator`.
        n_bins (int): Bins of the calibration error. The default is 15.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        converter: Callable = concat_examples,
        device=None,
        n_bins: int = 15,
    ) -> None:
        super().__init__(iterator, target, converter, device)
        self._n_bins = n_bins

    def measure(self, target: chainer.Link) -> dict[str, float]:
        scores, labels = [], []
        for x, t in self.batches():
            scores.append(predict(target.predictor, x))
            labels.append(labels_of(t))
        scores, labels = np.concatenate(scores), np.concatenate(labels)
        return {
            "ece": calibration.expected_calibration_error(scores, labels, self._n_bins),
            "nll": calibration.negative_log_likelihood(scores, labels),
            "brier": calibration.brier_score(scores, labels),
        }
