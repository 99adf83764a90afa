from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import chainer
import numpy as np
from chainer.dataset import concat_examples

from chainer_mmix.analysis import calibration
from chainer_mmix.analysis.predictions import labels_of, predict
from chainer_mmix.runs.reliability import write_reliability
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

    In a Trainer, it also writes a JSON file for the reliability diagram of
    ``chainer-mmix report``: ``edges``, ``count``, ``confidence`` and ``accuracy`` of
    :class:`~chainer_mmix.analysis.calibration.Reliability`, with ``null`` for NaN.

    Args:
        iterator, target, converter, device: See
            :class:`~chainer_mmix.training.extensions.PredictorEvaluator`.
        n_bins (int): Bins of the calibration error. The default is 15.
        filename (str): Name of the file in the output folder. The default is
            ``reliability.json``.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        converter: Callable = concat_examples,
        device=None,
        n_bins: int = 15,
        filename: str = "reliability.json",
    ) -> None:
        super().__init__(iterator, target, converter, device)
        self._n_bins = n_bins
        self._filename = filename
        self._bins: calibration.Reliability | None = None

    def __call__(self, trainer: chainer.training.Trainer | None = None) -> dict:
        result = super().__call__(trainer)
        if trainer is not None:
            write_reliability(Path(trainer.out, self._filename), self._bins)
        return result

    def measure(self, target: chainer.Link) -> dict[str, float]:
        scores, labels = [], []
        for x, t in self.batches():
            scores.append(predict(target.predictor, x))
            labels.append(labels_of(t))
        scores, labels = np.concatenate(scores), np.concatenate(labels)
        self._bins = calibration.reliability(scores, labels, self._n_bins)
        return {
            "ece": calibration.expected_calibration_error(scores, labels, self._n_bins),
            "nll": calibration.negative_log_likelihood(scores, labels),
            "brier": calibration.brier_score(scores, labels),
        }
