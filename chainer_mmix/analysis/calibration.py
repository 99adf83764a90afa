"""How far the probabilities of a classifier can be trusted.

All functions take scores of shape (N, C), the softmax of which are the probabilities:
logits, or logarithms of probabilities. They compute in float64. A label that is not one
of the C classes is an error; where a score is NaN, so is the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import chainer
import numpy as np
from scipy.special import log_softmax, softmax

from chainer_mmix.analysis.findings import Findings
from chainer_mmix.analysis.predictions import counted, predict_all


def calibration(
    classifier: chainer.Link,
    batches: Iterable[tuple],
    n_bins: int = 15,
    files: Mapping[str, Callable[[Path, Reliability], None]] | None = None,
) -> Findings:
    """Measures ``ece``, ``nll`` and ``brier`` of all examples together.

    Args:
        classifier (~chainer.Link): A link with a predictor. Labels that its accuracy or
            else its loss ignores do not count.
        batches (iterable of tuple): Inputs and targets.
        n_bins (int): Bins of the calibration error. The default is 15.
        files (mapping of callable): By file name, functions that write the table of the
            bins, called with path and table. The default is none.
    """
    scores, t = predict_all(classifier, batches)
    table = reliability(scores, t, n_bins)
    values = measure(scores, t, n_bins)

    def bound(write):
        return lambda path: write(path, table)

    return Findings(values, {name: bound(w) for name, w in (files or {}).items()})


def measure(scores: np.ndarray, t: np.ndarray, n_bins: int = 15) -> dict[str, float]:
    """Returns ``nll``, ``ece`` and ``brier`` of scores.

    Args:
        scores (numpy.ndarray): Logits, of shape (N, C).
        t (numpy.ndarray): Labels, of shape (N,).
        n_bins (int): Bins of the calibration error. The default is 15.
    """
    return {
        "nll": negative_log_likelihood(scores, t),
        "ece": expected_calibration_error(scores, t, n_bins),
        "brier": brier_score(scores, t),
    }


class Reliability(NamedTuple):
    """The predictions of a classifier by their confidence, in M bins.

    Attributes:
        edges (numpy.ndarray): The borders of the bins, M + 1 numbers from 0 to 1. A
            bin has its upper border, not its lower one.
        count (numpy.ndarray): The number of predictions in each bin.
        confidence (numpy.ndarray): Their mean confidence, NaN in an empty bin.
        accuracy (numpy.ndarray): The share of them that is right, likewise.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(scores: np.ndarray, t: np.ndarray, n_bins: int = 15) -> Reliability:
    """Compares confidence and accuracy: the table behind a reliability diagram.

    The confidence is the highest probability, that of the predicted class. Where a
    score is NaN or infinite, it is NaN, and so are the means of the last bin.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.

    Args:
        scores (numpy.ndarray): Array of shape (N, C).
        t (numpy.ndarray): Labels, integers of shape (N,).
        n_bins (int): The number of bins, of one width. The default is 15.
    """
    scores, t = counted(np.asarray(scores, np.float64), t)
    confidence = softmax(scores, axis=1).max(axis=1)
    right = scores.argmax(axis=1) == t  # of which tiny ones make equal probabilities
    right = np.where(np.isnan(confidence), np.nan, right)
    edges = np.linspace(0, 1, n_bins + 1)
    bins = np.digitize(confidence, edges[1:-1], right=True)
    count = np.bincount(bins, minlength=n_bins)
    with np.errstate(invalid="ignore"):  # 0 / 0
        return Reliability(
            edges,
            count,
            np.bincount(bins, confidence, n_bins) / count,
            np.bincount(bins, right, n_bins) / count,
        )


def pool(tables: Sequence[Reliability]) -> Reliability:
    """Pools the predictions of several tables.

    Args:
        tables (sequence of Reliability): Tables of the same bins.

    Raises:
        ValueError: If their bins differ.
    """
    edges = tables[0].edges
    if not all(np.array_equal(table.edges, edges) for table in tables):
        numbers = sorted({len(table.count) for table in tables})
        raise ValueError(f"tables of different bins ({numbers}) cannot be pooled")
    counts, *shares = (np.stack(part) for part in list(zip(*tables, strict=True))[1:])
    total = counts.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0
        means = [
            np.where(counts > 0, counts * s, 0).sum(axis=0) / total for s in shares
        ]
    return Reliability(edges, total, *means)


def expected_calibration_error(
    scores: np.ndarray, t: np.ndarray, n_bins: int = 15
) -> float:
    """Computes the mean distance between confidence and accuracy, in [0, 1].

    It is the mean over the bins of :func:`reliability`, weighted by their counts. It is
    0 if, for all p, a share p of the predictions made with probability p is right.

    Source: as :func:`reliability`.

    Args:
        scores (numpy.ndarray): Array of shape (N, C).
        t (numpy.ndarray): Labels, integers of shape (N,).
        n_bins (int): The number of bins, of one width. The default is 15.
    """
    table = reliability(scores, t, n_bins)
    full = table.count > 0
    if not full.any():
        return np.nan
    distance = np.abs(table.accuracy - table.confidence)[full]
    return float(np.average(distance, weights=table.count[full]))


def negative_log_likelihood(scores: np.ndarray, t: np.ndarray) -> float:
    """Computes the mean of minus the logarithm of the true class's probability.

    Args:
        scores (numpy.ndarray): Array of shape (N, C).
        t (numpy.ndarray): Labels, integers of shape (N,).
    """
    scores, t = counted(np.asarray(scores, np.float64), t)
    log_probability = log_softmax(scores, axis=1)
    return _mean(-log_probability[np.arange(len(t)), t])


def brier_score(scores: np.ndarray, t: np.ndarray) -> float:
    """Computes the mean squared distance of the probabilities to the one-hot truth.

    It is the sum over all classes, from 0 to 2, as Brier defined it in 1950; for two
    classes, some authors take half of it.

    Args:
        scores (numpy.ndarray): Array of shape (N, C).
        t (numpy.ndarray): Labels, integers of shape (N,).
    """
    scores, t = counted(np.asarray(scores, np.float64), t)
    error = softmax(scores, axis=1)
    error[np.arange(len(t)), t] -= 1
    return _mean((error**2).sum(axis=1))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan
