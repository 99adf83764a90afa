"""Softmax cross entropy with its gradient, and accuracy, of one or more targets.

Logits are float32 of shape (N, C). For K targets, labels (int64) and the weights of
the samples (float64) are of shape (K, N), all of them contiguous. It is little work,
done by one thread.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray

from chainer_revive.cpu.loops import pool
from chainer_revive.cpu.loops.intrinsics import doubles, floats, integers
from chainer_revive.cpu.loops.pool import Task


def cross_entropy(
    x: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    ignore_label: int,
    normalize: bool,
    label_smoothing: float,
    p: np.ndarray,
    gradient: np.ndarray,
) -> tuple[float, float]:
    """Writes the softmax to p, and the gradient of the loss; weights are overwritten.

    Returns:
        tuple: The loss, and how many samples the last target was divided by: 0 if a
        label is out of range.
    """
    numbers = np.array([label_smoothing, 0.0])
    sizes = *labels.shape, x.shape[1]
    arrays = x, labels, weights, p, gradient, numbers
    pool.run(_cross_entropy, 1, 1, *arrays, *sizes, ignore_label, bool(normalize))
    loss, count = numbers.tolist()
    return loss, count


def accuracy(
    y: np.ndarray, labels: np.ndarray, weights: np.ndarray, ignore_label: int
) -> float:
    """Returns the weighted share of hits among the labels that are not ignored."""
    counts = np.zeros((len(labels), 2))
    sizes = *labels.shape, y.shape[1]
    pool.run(_accuracy, 1, 1, y, labels, weights, counts, *sizes, ignore_label)
    return sum([hits / max(count, 1) for hits, count in counts.tolist()])


@Task
def _cross_entropy(arguments, start, stop):
    k_target, n, c = arguments[6], arguments[7], arguments[8]
    ignore_label, normalize = arguments[9], arguments[10]
    labels = carray(integers(arguments[1]), (k_target, n))
    weights = carray(doubles(arguments[2]), (k_target, n))
    numbers = carray(doubles(arguments[5]), 2)
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
        x = carray(floats(arguments[0] + 4 * i * c), c)
        p = carray(floats(arguments[3] + 4 * i * c), c)
        gradient = carray(floats(arguments[4] + 4 * i * c), c)
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
    k_target, n, c = arguments[4], arguments[5], arguments[6]
    ignore_label = arguments[7]
    labels = carray(integers(arguments[1]), (k_target, n))
    weights = carray(doubles(arguments[2]), (k_target, n))
    counts = carray(doubles(arguments[3]), (k_target, 2))
    for i in range(n):
        y = carray(floats(arguments[0] + 4 * i * c), c)
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
