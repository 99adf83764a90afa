"""Softmax cross entropy and accuracy of small batches, where there are compiled loops.

In NumPy, they are a few dozen calls. Each sample may have several labels, each with a
weight. The functions return ``NotImplemented`` for what they do not cover.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chainer_revive.cpu import compiled, steps
from chainer_revive.explain import declined

_MANY = 1 << 17  # logits, for which NumPy is as fast
_OUT_OF_RANGE = "a label is out of range"
_NO_LABEL = np.iinfo(np.int64).min
_NOT_COVERED = (
    f"it is for NumPy arrays: float32 logits (N, C), {_MANY} at most, with signed "
    "integer labels (N,), and needs Numba"
)


def cross_entropy(
    x: np.ndarray,
    targets: Sequence[np.ndarray],
    weights: Sequence[float | np.ndarray],
    ignore_label: int,
    normalize: bool,
    label_smoothing: float = 0.0,
):
    """Computes softmax cross entropy over several targets, each with its weight.

    Args:
        x: Logits of shape (N, C).
        targets: For each target, labels of shape (N,).
        weights: For each, a number or an array of shape (N,).
        ignore_label: See :func:`chainer.functions.softmax_cross_entropy`.
        normalize: See there.
        label_smoothing: The share of each target that is spread over the classes.

    Returns:
        tuple: The loss, its gradient, the softmax, and how many samples the last target
        was divided by. ``NotImplemented`` also if a label is out of range.
    """
    loops = _loops(x, targets)
    if not loops or not isinstance(ignore_label, int):
        return declined(_NOT_COVERED)
    x = steps.contiguous(x)
    gx, p = np.empty_like(x), np.empty_like(x)
    labels, shares = _rows(targets, len(x), np.int64), _rows(weights, len(x), float)
    numbers = np.empty(2)
    loops.cross_entropy.cross_entropy(
        *(x, labels, shares, ignore_label, normalize, label_smoothing, p, gx, numbers)
    )
    if not (count := float(numbers[1])):
        return declined(_OUT_OF_RANGE)
    loss = np.empty((), x.dtype)
    steps.do(_take_loss, numbers, loss)
    return loss, gx, p, count


def _take_loss(numbers, loss) -> None:
    if not numbers[1]:
        raise steps.CannotReplayError(_OUT_OF_RANGE)
    loss[...] = numbers[0]


def accuracy(
    y: np.ndarray,
    targets: Sequence[np.ndarray],
    weights: Sequence[float | np.ndarray],
    ignore_label: int | None = None,
):
    """Returns the weighted accuracy; for the arguments see :func:`cross_entropy`."""
    loops = _loops(y, targets)
    if ignore_label is None:
        ignore_label = _NO_LABEL
    if not loops or not isinstance(ignore_label, int):
        return declined(_NOT_COVERED)
    labels, shares = _rows(targets, len(y), np.int64), _rows(weights, len(y), float)
    result = np.empty((), y.dtype)
    loops.cross_entropy.accuracy(
        steps.contiguous(y), labels, shares, ignore_label, result
    )
    return result


def _loops(x, targets):
    if type(x) is not np.ndarray or x.ndim != 2 or not 0 < x.size <= _MANY:
        return None
    for t in targets:
        if type(t) is not np.ndarray or t.dtype.kind != "i" or t.shape != x.shape[:1]:
            return None
    return compiled.loops(x.dtype)


def _rows(values: Sequence, n: int, dtype: type) -> np.ndarray:
    rows = np.empty((len(values), n), dtype)
    steps.do(_set_rows, rows, *values)
    return rows


def _set_rows(rows, *values) -> None:
    for row, value in zip(rows, values, strict=True):
        row[:] = value
