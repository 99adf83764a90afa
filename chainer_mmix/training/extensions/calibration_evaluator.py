from __future__ import annotations

import functools

import chainer

from chainer_mmix.analysis.calibration import calibration
from chainer_mmix.checks import check_whole
from chainer_mmix.runs.reliability import write_reliability
from chainer_mmix.training.extensions.predictor_evaluator import PredictorEvaluator


class CalibrationEvaluator(PredictorEvaluator):
    """Reports how far the probabilities of a classifier can be trusted.

    The probabilities are the softmax of the predictor's outputs. It reports

    - ``ece``: the expected calibration error, the mean distance between confidence and
      accuracy;
    - ``nll``: the negative log-likelihood;
    - ``brier``: the Brier score, from 0 to 2.

    :mod:`chainer_mmix.analysis.calibration` defines them. They are computed from all
    examples together, not averaged over minibatches. Labels that the classifier's
    accuracy or loss ignores do not count. Per-pixel labels count individually.

    In a Trainer, it also writes a JSON file for the reliability diagram of
    ``chainer-mmix report``: ``edges``, ``count``, ``confidence`` and ``accuracy`` of
    :class:`~chainer_mmix.analysis.calibration.Reliability`, with ``null`` for NaN.

    Args:
        iterator, target, args, options: The arguments of
            :class:`~chainer_mmix.training.extensions.PredictorEvaluator` but
            ``measure``.
        n_bins (int): Bins of the calibration error. The default is 15.
        filename (str): Name of the file in the output folder. The default is
            ``reliability.json``.

    Raises:
        ValueError: If ``n_bins`` is no number of bins.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        *args,
        n_bins: int = 15,
        filename: str = "reliability.json",
        **options,
    ) -> None:
        check_whole("n_bins", n_bins, 1)
        files = {filename: write_reliability}
        measure = functools.partial(calibration, n_bins=n_bins, files=files)
        super().__init__(iterator, target, measure, *args, **options)
