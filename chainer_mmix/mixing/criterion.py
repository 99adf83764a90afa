from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import chainer
import chainer.functions as F
import numpy as np
from chainer import backend

from chainer_mmix.mixing.binary_cross_entropy import softmax_binary_cross_entropy
from chainer_mmix.mixing.functions import check_lam
from chainer_mmix.mixing.losses import mixup_softmax_cross_entropy
from chainer_mmix.mixing.static import StaticWeights
from chainer_mmix.mixing.targets import (
    both_weights,
    columns,
    mix_targets,
    soft_target,
    to_labels,
)
from chainer_revive.cpu import cross_entropy as on_cpu
from chainer_revive.cuda import cross_entropy as on_gpu
from chainer_revive.either import either

_in_one_pass = either(on_cpu.accuracy, on_gpu.accuracy)
_OF_CLASSES = (F.softmax_cross_entropy, softmax_binary_cross_entropy, F.accuracy)


def mixup_accuracy(
    y, target_a, target_b, lam, ignore_label: int | None = None
) -> chainer.Variable:
    r"""Lambda-weighted accuracy: a hit of the first target counts :math:`\lambda`.

    The accuracy of mixed samples against the first target alone says nothing: a
    network that predicts both partners perfectly would score the share of
    :math:`\lambda > 1/2`.

    Args:
        y (~chainer.Variable or array): Scores of shape :math:`(N, C, d_1, ...)`.
        target_a (~chainer.Variable or array): Labels, shape :math:`(N, d_1, ...)`, or
            probabilities of the shape of ``y``, of which the most probable counts.
        target_b (~chainer.Variable or array): Those of the partners, likewise.
        lam (float or array): Weight of ``target_a``: a number or an array of shape
            :math:`(N,)`.
        ignore_label (int): Elements with this label do not count; ``None``, the
            default, for none.

    Returns:
        ~chainer.Variable: A scalar of the dtype of ``y``; no gradient flows.

    Raises:
        TypeError: If the targets are neither labels nor probabilities.
    """
    y = chainer.as_array(y)
    a, b = (to_labels(t, y) for t in (target_a, target_b))
    lam = check_lam(lam, len(y))
    accuracy = _in_one_pass(y, (a, b), both_weights(lam), ignore_label)
    if accuracy is NotImplemented:
        accuracy = _accuracy(y, a, b, lam, ignore_label)
    return chainer.Variable(accuracy, requires_grad=False)


def _accuracy(y, a, b, lam, ignore_label: int | None):
    pred = y.argmax(axis=1).reshape(a.shape)
    accuracy = 0
    for t, share in zip((a, b), columns(lam, a), strict=True):
        hits = share * (pred == t)
        if ignore_label is None:
            accuracy += hits.mean()
        else:
            valid = t != ignore_label
            accuracy += (hits * valid).sum() / valid.sum().clip(1)
    return backend.get_array_module(y).asarray(accuracy, y.dtype)


def mixup_criterion(
    criterion: Callable, y, target_a, target_b, lam, label_smoothing: float = 0.0
):
    r"""Applies a criterion to mixed samples, which have two targets.

    - Labels, which are of an integer dtype, cannot be mixed; the results are:
      :math:`\lambda\,\mathrm{criterion}(y, t_a) +
      (1 - \lambda)\,\mathrm{criterion}(y, t_b)`. For
      :func:`chainer.functions.softmax_cross_entropy` and
      :func:`chainer.functions.accuracy`, also within a :func:`functools.partial`, this
      takes one pass.
    - Targets of a float dtype (one-hot vectors, probabilities, what a regression
      predicts) are mixed as the samples are:
      :math:`\mathrm{criterion}(y, \lambda t_a + (1 - \lambda) t_b)`.

    For a loss that is linear in the target, such as cross entropy, both are the same.

    Args:
        criterion (callable): Called with a prediction and a target, such as a loss
            function or an accuracy.
        y (~chainer.Variable): The prediction, of shape :math:`(N, ...)`.
        target_a: Targets of the first partners, of shape :math:`(N, ...)`.
        target_b: Targets of the second partners, likewise; ``target_a`` itself if
            nothing was mixed.
        lam (float or array): Weight of ``target_a``: a number, or an array of shape
            :math:`(N,)` if the criterion is one of those above,
            :func:`chainer.functions.sigmoid_cross_entropy` or
            :func:`chainer.functions.binary_accuracy`, if it gives one value a sample,
            or if the targets are of a float dtype.
        label_smoothing (float): The share of each target that is spread evenly over
            the classes, for softmax cross entropy and
            :func:`~chainer_mmix.mixing.softmax_binary_cross_entropy`. The default is
            0.

    Returns:
        ~chainer.Variable: The weighted criterion; the mean over the batch if ``lam``
        is an array.

    Raises:
        ValueError: If ``lam`` is an array and the criterion gives one value a batch;
            if a criterion cannot be smoothed; and if softmax cross entropy has a
            ``class_weight`` that Chainer would ignore, since the targets are
            probabilities.
    """
    function, options = _unwrap(criterion)
    if function in _OF_CLASSES and not hasattr(y, "shape"):
        raise TypeError(
            f"the predictor returned a {type(y).__name__}, and {function.__name__} "
            "takes an array of logits: let it return these, or pass a lossfun and an "
            "accfun that take the whole"
        )
    is_label = target_a.dtype.kind != "f"
    is_mixed = target_a is not target_b
    if function is F.accuracy:
        if is_mixed or not is_label:
            return mixup_accuracy(y, target_a, target_b, lam, **options)
        arrays = chainer.as_array(y), (chainer.as_array(target_a),)
        accuracy = _in_one_pass(*arrays, (1.0,), **options)
        if accuracy is not NotImplemented:
            return chainer.Variable(accuracy, requires_grad=False)
    ce, bce = F.softmax_cross_entropy, softmax_binary_cross_entropy
    if label_smoothing and function not in (ce, bce):
        raise ValueError(
            f"label_smoothing is for softmax_cross_entropy and {bce.__name__}, not for "
            f"{criterion!r}: smooth the targets yourself, as probabilities"
        )
    if function is ce and not is_label and options.get("class_weight") is not None:
        raise ValueError(
            "Chainer's softmax_cross_entropy ignores class_weight if the targets are "
            "probabilities: give labels, or weigh in a loss function of your own"
        )
    if not (is_mixed or label_smoothing):
        return criterion(y, target_a)
    lam = check_lam(lam, len(target_a))
    if function is ce and is_label:
        # The others say how to compute, or are for soft targets.
        names = ("normalize", "class_weight", "ignore_label", "reduce")
        options = {name: options[name] for name in names if name in options}
        return mixup_softmax_cross_entropy(
            y, target_a, target_b, lam, label_smoothing=label_smoothing, **options
        )
    if function in (ce, bce):
        target_a, target_b = (
            soft_target(t, y, label_smoothing) for t in (target_a, target_b)
        )
        is_label = False
    if not is_label:
        return criterion(y, mix_targets(target_a, target_b, lam))
    if isinstance(lam, StaticWeights):
        raise TypeError(f"{criterion!r} of labels needs lambda on the host")
    if np.ndim(lam) and criterion in (F.sigmoid_cross_entropy, F.binary_accuracy):
        return _multi_label(criterion, y, target_a, target_b, lam)
    loss_a = criterion(y, target_a)
    loss_b = criterion(y, target_b)
    if isinstance(lam, float):
        return lam * loss_a + (1 - lam) * loss_b
    if loss_a.shape[:1] != lam.shape:
        raise ValueError(
            f"lam has one value a sample, shape {lam.shape}, but {criterion!r} "
            f"returned shape {loss_a.shape}: let it return one value a sample, as "
            "reduce='no' does for losses of Chainer"
        )
    lam, rest = columns(lam, loss_a)
    loss = lam * F.cast(loss_a, lam.dtype) + rest * F.cast(loss_b, lam.dtype)
    return F.cast(F.mean(loss), loss_a.dtype)


def ignored_label(lossfun: Callable) -> int | None:
    """Returns the label that a loss function, or an accuracy, leaves out.

    Args:
        lossfun (callable): A function of Chainer or any other, also within a
            :func:`functools.partial`. It says which label it leaves out by an argument
            named ``ignore_label``.

    Returns:
        int: The label, such as -1 for :func:`chainer.functions.softmax_cross_entropy`;
        ``None`` if it leaves out none, or does not say.
    """
    function, _ = _unwrap(lossfun)
    if function in (F.sigmoid_cross_entropy, F.binary_accuracy):
        return -1  # fixed, so that they have no argument for it
    try:
        parameter = inspect.signature(lossfun).parameters.get("ignore_label")
    except (TypeError, ValueError):  # some builtins have no signature
        return None
    label = None if parameter is None else parameter.default
    return None if label in (None, inspect.Parameter.empty) else int(label)


def _unwrap(criterion: Callable) -> tuple[Callable, dict]:
    """Returns a function and the options that a partial gives to it."""
    if isinstance(criterion, functools.partial) and not criterion.args:
        return criterion.func, criterion.keywords
    return criterion, {}


def _multi_label(criterion: Callable, y, target_a, target_b, lam) -> chainer.Variable:
    """As of two calls of Chainer's criterion, which cannot weigh each sample."""
    result = 0
    for target, weight in zip((target_a, target_b), columns(lam, y), strict=True):
        target = chainer.as_array(target)
        if criterion is F.binary_accuracy:
            values = chainer.Variable((chainer.as_array(y) >= 0) == target)
        else:
            values = criterion(y, target, reduce="no")
        # An array, since a number would have to wait for a GPU.
        count = (target != -1).sum().clip(1).astype(weight.dtype)
        result += F.sum(weight * F.cast(values, weight.dtype)) / count
    return F.cast(result, y.dtype)
