from __future__ import annotations

import chainer
from chainer import backend

from chainer_mmix.mixing.targets import check_range, to_labels
from chainer_mmix.mixing.weights import Weights
from chainer_revive.cpu import cross_entropy as on_cpu
from chainer_revive.cpu import steps
from chainer_revive.cuda import cross_entropy as on_gpu
from chainer_revive.either import either

_in_one_pass = either(on_cpu.accuracy, on_gpu.accuracy)


def mixup_accuracy(
    y, target_a, target_b, lam, ignore_label: int | None = None, k: int = 1
) -> chainer.Variable:
    r"""Computes the accuracy over both targets, weighted by :math:`\lambda`.

    A prediction scores :math:`\lambda` if it is the first partner's target and
    :math:`1 - \lambda` if it is the second's. The accuracy of mixed samples against the
    first target alone is meaningless: a network that predicts both partners perfectly
    would score the share of samples with :math:`\lambda > 1/2`.

    Args:
        y (~chainer.Variable or array): Scores of shape :math:`(N, C, d_1, ...)`.
        target_a (~chainer.Variable or array): Labels, shape :math:`(N, d_1, ...)`, or
            probabilities of the shape of ``y``, of which the most probable counts.
        target_b (~chainer.Variable or array): Targets of the partners, likewise.
        lam (float or array): Weight of ``target_a``: a number or an array of shape
            :math:`(N,)`.
        ignore_label (int): Elements with this label do not count; ``None``, the
            default, for none.
        k (int): A target counts as predicted if it is among the k classes with the
            largest scores. The default is 1.

    Returns:
        ~chainer.Variable: A scalar of the dtype of ``y``; no gradient flows.

    Raises:
        TypeError: If the targets are neither labels nor probabilities.
        ValueError: If k is not below the number of classes, or a label is out of range
            (on a GPU: in Chainer's debug mode only).
    """
    y = chainer.as_array(y)
    targets = [to_labels(t, y) for t in (target_a, target_b)]
    return weighted_accuracy(y, targets, Weights.of(lam, len(y)), ignore_label, k)


def top_k_accuracy(y, t, k: int = 5, ignore_label: int | None = None):
    """Computes how often the label is among the k classes with the largest scores.

    Ties are broken in favour of the lower class number. For k = 1 it equals
    :func:`chainer.functions.accuracy`. NaN counts as larger than any number.

    Args:
        y (~chainer.Variable or array): Scores of shape (N, C, d_1, ...).
        t (~chainer.Variable or array): Labels, shape (N, d_1, ...), or probabilities of
            the shape of ``y``, of which the most probable counts.
        k (int): At least 1 and less than C. The default is 5.
        ignore_label (int): Elements with this label do not count; ``None``, the
            default, for none.

    Returns:
        ~chainer.Variable: A scalar of the dtype of ``y``; no gradient flows.

    Raises:
        TypeError, ValueError: As :func:`~chainer_mmix.mixing.mixup_accuracy`.
    """
    y = chainer.as_array(y)
    weights = Weights.of(1.0, len(y))
    return weighted_accuracy(y, [to_labels(t, y)], weights, ignore_label, k)


def weighted_accuracy(
    y, targets: list, weights: Weights, ignore_label: int | None = None, k: int = 1
):
    """Returns the accuracy over the labels of one or both partners."""
    n_class = y.shape[1]
    if not 1 <= k < max(n_class, 2):
        raise ValueError(
            f"the top {k} of {n_class} classes cannot be told from all: choose k from "
            f"1 to {n_class - 1}"
        )
    for t in targets:
        check_range(t, n_class, ignore_label)
    if k == 1:
        pair = weights.pair[: len(targets)]
        accuracy = _in_one_pass(y, targets, pair, ignore_label)
        if accuracy is not NotImplemented:
            return chainer.Variable(accuracy, requires_grad=False)
    xp = backend.get_array_module(y)
    accuracy = xp.empty((), y.dtype)
    shares = weights.columns(targets[0]) if len(targets) > 1 else (1,)
    pairs = [a for pair in zip(targets, shares, strict=True) for a in pair]
    steps.do(_measure, accuracy, y, ignore_label, k, *pairs)
    return chainer.Variable(accuracy, requires_grad=False)


def _measure(accuracy, y, ignore_label, k: int, *pairs) -> None:
    """Writes the accuracy over targets, each of which has its share after it."""
    total = 0
    for t, share in zip(pairs[::2], pairs[1::2], strict=True):
        hits = share * _hits(y, t, k)
        if ignore_label is None:
            total += hits.mean()
        else:
            valid = t != ignore_label
            total += (hits * valid).sum() / valid.sum().clip(1)
    accuracy[...] = total


def _hits(y, t, k: int):
    if k == 1:
        return y.argmax(axis=1).reshape(t.shape) == t
    xp = backend.get_array_module(y)
    label = xp.expand_dims(t.clip(0), 1)  # what is ignored may be negative
    score = xp.take_along_axis(y, label.clip(None, y.shape[1] - 1), 1)
    classes = xp.arange(y.shape[1]).reshape(-1, *[1] * (y.ndim - 2))
    is_before = ~(y <= score) | ((y == score) & (classes < label))
    return is_before.sum(axis=1) < k
