"""Softmax cross entropy with its gradient, and accuracy, of one or more targets.

Logits are float32 of shape (N, C). For K targets, labels (int64) and the weights of
the samples (float64) are of shape (K, N), all of them contiguous. It is little work,
done by one thread.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from chainer_revive.cpu import steps
from chainer_revive.cpu.numba import threads
from chainer_revive.cpu.numba.intrinsics import doubles, floats, integers, unpack
from chainer_revive.cpu.numba.later import carray
from chainer_revive.cpu.numba.threads import Task


class CrossEntropy(NamedTuple):
    """Logits x (n, c), labels and weights (k, n), softmax and gradient (n, c).

    ``numbers``, float64 (2,), are the label smoothing and 0; then the loss, and how
    many samples the last target was divided by.
    """

    x: int
    labels: int
    weights: int
    p: int
    gradient: int
    numbers: int
    k: int
    n: int
    c: int
    ignore_label: int
    normalize: int


class Accuracy(NamedTuple):
    """Scores y (n, c), labels and weights (k, n), and counts (k, 2), which are written:
    the weighted hits, and how many labels are not ignored.
    """

    y: int
    labels: int
    weights: int
    counts: int
    k: int
    n: int
    c: int
    ignore_label: int


def cross_entropy(
    x: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    ignore_label: int,
    normalize: bool,
    label_smoothing: float,
    p: np.ndarray,
    gradient: np.ndarray,
    numbers: np.ndarray,
) -> None:
    """Writes the softmax to p, and the gradient of the loss; weights are overwritten.

    Args:
        numbers: float64 (2,), written: the loss, and how many samples the last target
            was divided by: 0 if a label is out of range.
    """
    steps.do(_set, numbers, label_smoothing, 0.0)
    arguments = CrossEntropy(
        *(x, labels, weights, p, gradient, numbers),
        *(*labels.shape, x.shape[1], ignore_label, bool(normalize)),
    )
    threads.run(_cross_entropy, 1, 1, arguments)


def _set(numbers, *values) -> None:
    numbers[:] = values


def accuracy(
    y: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    ignore_label: int,
    result: np.ndarray,
) -> None:
    """Writes the weighted share of hits among the labels that are not ignored."""
    counts = steps.filled((len(labels), 2), float, 0)
    sizes = *labels.shape, y.shape[1]
    arguments = Accuracy(y, labels, weights, counts, *sizes, ignore_label)
    threads.run(_accuracy, 1, 1, arguments)
    steps.do(_share, counts, result)


def _share(counts, result) -> None:
    result[...] = sum([hits / max(count, 1) for hits, count in counts.tolist()])


@Task
def _cross_entropy(arguments, start, stop):
    a = unpack(arguments, CrossEntropy)
    k_target, n, c = a.k, a.n, a.c
    ignore_label, normalize = a.ignore_label, a.normalize
    labels = carray(integers(a.labels), (k_target, n))
    weights = carray(doubles(a.weights), (k_target, n))
    numbers = carray(doubles(a.numbers), 2)
    smoothing, count = numbers[0], 0
    for k in range(k_target):
        count = 0
        for i in range(n):
            if labels[k, i] != ignore_label:
                if not 0 <= labels[k, i] < c:
                    return
                count += 1
        count = max(count if normalize else n, 1)
        for i in range(n):
            weights[k, i] /= count

    loss = 0.0
    for i in range(n):
        x = carray(floats(a.x + 4 * i * c), c)
        p = carray(floats(a.p + 4 * i * c), c)
        gradient = carray(floats(a.gradient + 4 * i * c), c)
        largest = x[0]
        for j in range(1, c):
            largest = x[j] if x[j] > largest else largest
        total = 0.0
        for j in range(c):
            p[j] = math.exp(x[j] - largest)
            total += p[j]
        for j in range(c):
            p[j] *= 1 / total
        log_total = math.log(total)
        # An ignored label weighs nothing, but lets NaN through, as Chainer's code does.
        weight = 0.0
        for k in range(k_target):
            if labels[k, i] != ignore_label:
                weight += weights[k, i]
        for j in range(c):
            gradient[j] = weight * p[j] - weight * smoothing / c
        for k in range(k_target):
            valid = labels[k, i] != ignore_label
            label = labels[k, i] if valid else 0
            hit = weights[k, i] * valid * (1 - smoothing)
            loss -= hit * (x[label] - largest - log_total)
            gradient[label] -= hit
        if smoothing:
            for j in range(c):
                loss -= weight * smoothing / c * (x[j] - largest - log_total)
    numbers[0], numbers[1] = loss, count


@Task
def _accuracy(arguments, start, stop):
    a = unpack(arguments, Accuracy)
    k_target, n, c, ignore_label = a.k, a.n, a.c, a.ignore_label
    labels = carray(integers(a.labels), (k_target, n))
    weights = carray(doubles(a.weights), (k_target, n))
    counts = carray(doubles(a.counts), (k_target, 2))
    for i in range(n):
        y = carray(floats(a.y + 4 * i * c), c)
        best = 0
        for j in range(1, c):
            # As NumPy's argmax: the first of the largest, or the first NaN.
            if y[j] > y[best] or (y[j] != y[j] and y[best] == y[best]):
                best = j
        for k in range(k_target):
            if labels[k, i] != ignore_label:
                counts[k, 1] += 1
                if labels[k, i] == best:
                    counts[k, 0] += weights[k, i]
