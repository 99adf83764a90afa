from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import chainer
import chainer.functions as F
import numpy as np

from chainer_mmix.mixing.accuracy import (
    mixup_accuracy,
    top_k_accuracy,
    weighted_accuracy,
)
from chainer_mmix.mixing.binary_cross_entropy import softmax_binary_cross_entropy
from chainer_mmix.mixing.both_partners import average_of_both, checked
from chainer_mmix.mixing.losses import mixup_softmax_cross_entropy
from chainer_mmix.mixing.targets import (
    check_multi_label,
    check_probabilities,
    check_range,
    soft_target,
    to_labels,
)
from chainer_mmix.mixing.weights import Weights


def mixup_criterion(
    criterion: Callable, y, target_a, target_b, lam, label_smoothing: float = 0.0
):
    r"""Applies a criterion to mixed samples, which have two targets.

    - Labels, which have an integer dtype, cannot be mixed. The result is
      :math:`\lambda\,\mathrm{criterion}(y, t_a) +
      (1 - \lambda)\,\mathrm{criterion}(y, t_b)`.
      :func:`chainer.functions.softmax_cross_entropy`,
      :func:`chainer.functions.accuracy` and
      :func:`~chainer_mmix.mixing.top_k_accuracy`, also within a
      :func:`functools.partial`, are computed in one pass. Any other criterion is called
      twice: its reports are weighted in the same way, and its attributes are updated
      once, by the first targets.
    - Targets of a float dtype (one-hot vectors, probabilities, numbers to predict) are
      mixed like the samples. The result is
      :math:`\mathrm{criterion}(y, \lambda t_a + (1 - \lambda) t_b)`.

    For a loss that is linear in the target, such as cross entropy, both are the same;
    for others, the second is the loss for the mixed target, not the mixed loss.

    Unlike in Chainer, the targets of :func:`chainer.functions.sigmoid_cross_entropy`
    may be probabilities, float arrays in :math:`[0, 1]` of the shape of ``y``;
    :func:`chainer.functions.binary_accuracy` counts 0.5 and more as 1.

    Args:
        criterion (callable): Called with a prediction and a target, such as a loss
            function or an accuracy.
        y (~chainer.Variable): The prediction, of shape :math:`(N, ...)`.
        target_a: Targets of the first partners, of shape :math:`(N, ...)`.
        target_b: Targets of the second partners, of the same shape; ``target_a`` itself
            if nothing was mixed.
        lam (float or array): Weight of ``target_a``: a number, or an array of shape
            :math:`(N,)` if the criterion is one of those above or returns one value per
            sample, or if the targets have a float dtype.
        label_smoothing (float): The share of each target that is spread evenly over
            the classes, for softmax cross entropy and
            :func:`~chainer_mmix.mixing.softmax_binary_cross_entropy`. For
            :func:`chainer.functions.sigmoid_cross_entropy` it moves each target
            towards one half. The default is 0.

    Returns:
        ~chainer.Variable: The weighted criterion; the mean over the batch if ``lam``
        is an array.

    Raises:
        ValueError: If the criterion takes one score per class, but ``y`` has another
            shape; if ``lam`` is an array but the criterion returns one value per batch;
            if ``label_smoothing`` is given for another criterion; if a label is out of
            range (on a GPU: in Chainer's debug mode only); or if softmax cross entropy
            has a ``class_weight``, which Chainer ignores for targets that are
            probabilities.
    """
    function, options = _unwrap(criterion)
    if function in _OF_CLASSES and not hasattr(y, "shape"):
        raise TypeError(
            f"the predictor returned a {type(y).__name__}, and {function.__name__} "
            "takes an array of logits: let it return these, or pass a lossfun and an "
            "accfun that take the whole"
        )
    if (
        function in _OF_CLASSES
        and y.ndim < 2
        and function is not F.sigmoid_cross_entropy
    ):
        raise ValueError(
            f"the predictor returned shape {y.shape}, and {function.__name__} takes "
            "one score a class, shape (N, C): pass lossfun=sigmoid_cross_entropy and "
            "accfun=binary_accuracy for one logit a sample, lossfun=mean_squared_error "
            "and accfun=None for numbers to predict"
        )
    if label_smoothing and function not in _SMOOTHED:
        raise ValueError(
            "label_smoothing is for softmax_cross_entropy, sigmoid_cross_entropy and "
            f"{softmax_binary_cross_entropy.__name__}, not for {criterion!r}: smooth "
            "the targets yourself, as probabilities"
        )
    known = isinstance(function, types.FunctionType)  # others may not be hashable
    handler = _HANDLERS.get(function, _any_loss) if known else _any_loss
    weights = Weights.of(lam, len(target_a))
    return handler(
        _Call(criterion, options, y, target_a, target_b, weights, label_smoothing)
    )


def mixup_score(accfun: Callable, y, target_a, target_b, lam):
    r"""Applies an accuracy function to mixed samples, which have two targets.

    The result is :math:`\lambda\,\mathrm{accfun}(y, t_a) +
    (1 - \lambda)\,\mathrm{accfun}(y, t_b)` for every kind of target, since an accuracy,
    unlike a loss, may be meaningless for a mixed target. Chainer's functions for
    numbers to predict (:func:`~chainer.functions.r2_score`,
    :func:`~chainer.functions.mean_squared_error` and
    :func:`~chainer.functions.mean_absolute_error`) take the mixed target.

    Args:
        accfun (callable): Called with a prediction and a target.
        y, target_a, target_b, lam: See :func:`mixup_criterion`. If ``lam`` is an
            array, a custom function must return one value per sample.

    Returns:
        The accuracy; the mean over the batch if ``lam`` is an array.

    Raises:
        ValueError: If ``lam`` is an array but the function returns one value per batch.
    """
    function, _ = _unwrap(accfun)
    known = isinstance(function, types.FunctionType)
    if target_a is target_b or (known and function in _HANDLERS):
        return mixup_criterion(accfun, y, target_a, target_b, lam)
    weights = Weights.of(lam, len(target_a))
    return average_of_both(accfun, y, target_a, target_b, weights)


def ignored_label(lossfun: Callable) -> int | None:
    """Returns the label that a loss function, or an accuracy, leaves out.

    Args:
        lossfun (callable): A function of Chainer or any other, also within a
            :func:`functools.partial`. The label is the default of its argument
            ``ignore_label``.

    Returns:
        int: The label, such as -1 for :func:`chainer.functions.softmax_cross_entropy`;
        ``None`` if there is no such argument.
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


class _Call(NamedTuple):
    """A criterion, with what it is applied to."""

    criterion: Callable
    options: dict
    y: Any
    target_a: Any
    target_b: Any
    weights: Weights
    label_smoothing: float = 0.0

    @property
    def is_mixed(self) -> bool:
        return self.target_a is not self.target_b

    @property
    def is_label(self) -> bool:
        return self.target_a.dtype.kind != "f"

    def plain(self):
        return checked(self.criterion(self.y, self.target_a), self.criterion)


def _softmax_cross_entropy(call: _Call):
    if not call.is_label:
        if call.options.get("class_weight") is not None:
            raise ValueError(
                "Chainer's softmax_cross_entropy ignores class_weight if the targets "
                "are probabilities: give labels, or weigh in a loss function of your "
                "own"
            )
        return _probabilities(call)
    if not (call.is_mixed or call.label_smoothing):
        if call.target_a.ndim == call.y.ndim - 1:
            labels = chainer.as_array(call.target_a)
            ignored = call.options.get("ignore_label", -1)
            check_range(labels, call.y.shape[1], ignored)
        return call.plain()
    # The others say how to compute, or are for soft targets.
    names = ("normalize", "class_weight", "ignore_label", "reduce")
    return mixup_softmax_cross_entropy(
        *call[2:6],
        label_smoothing=call.label_smoothing,
        **{name: call.options[name] for name in names if name in call.options},
    )


def _probabilities(call: _Call):
    if not (call.is_mixed or call.label_smoothing):
        if call.target_a.shape == call.y.shape:  # else Chainer refuses them
            check_probabilities(chainer.as_array(call.target_a))
        return call.plain()
    a, b = (
        soft_target(t, call.y, call.label_smoothing)
        for t in (call.target_a, call.target_b)
    )
    return call._replace(target_a=call.weights.mix_arrays(a, b)).plain()


def _accuracy_of_classes(call: _Call):
    if call.is_mixed or not call.is_label:
        return mixup_accuracy(*call[2:6], **call.options)
    y = chainer.as_array(call.y)
    labels = [to_labels(call.target_a, y)]
    return weighted_accuracy(y, labels, call.weights, **call.options)


def _mixed_numbers(call: _Call):
    if not call.is_mixed:
        return call.plain()
    a, b = map(chainer.as_array, (call.target_a, call.target_b))
    return call._replace(target_a=call.weights.mix_arrays(a, b)).plain()


def _any_loss(call: _Call):
    if not (call.is_mixed and call.is_label):
        return _mixed_numbers(call)
    return average_of_both(call.criterion, *call[2:6])


def _multi_label(call: _Call):
    """Equals two calls of Chainer's criterion, which cannot weigh each sample."""
    function, _ = _unwrap(call.criterion)
    if function is F.binary_accuracy and not call.is_label:
        a = _more_probable(call.target_a)
        b = _more_probable(call.target_b) if call.is_mixed else a
        call = call._replace(target_a=a, target_b=b)
    elif not call.is_label or call.label_smoothing:
        return _soft_multi_label(call)
    weights, reduce = call.weights, call.options.get("reduce", "mean")
    if (
        not (call.is_mixed and call.is_label)
        or isinstance(weights.first, float)
        or reduce != "mean"
    ):
        return _any_loss(call)
    y, result = call.y, 0
    targets = call.target_a, call.target_b
    for target, weight in zip(targets, weights.columns(y), strict=True):
        target = chainer.as_array(target)
        if function is F.binary_accuracy:
            values = chainer.Variable((chainer.as_array(y) >= 0) == target)
        else:
            values = F.sigmoid_cross_entropy(y, target, reduce="no")
        # An array, since a number would have to wait for a GPU.
        count = (target != -1).sum().clip(1).astype(weight.dtype)
        if not call.options.get("normalize", True):
            count = len(y)
        result += F.sum(weight * F.cast(values, weight.dtype)) / count
    return F.cast(result, y.dtype)


def _more_probable(target):
    """Returns 1 for probabilities of one half or more, else 0."""
    return (chainer.as_array(target) >= 0.5).astype(np.int32)


def _soft_multi_label(call: _Call):
    """The same for probabilities or smoothed labels, which Chainer does not support."""
    y, weights = call.y, call.weights
    dtype = np.promote_types(y.dtype, np.float32)
    targets = [*map(chainer.as_array, (call.target_a, call.target_b))]
    for t in targets:
        check_multi_label(t, y.shape)
    shares = [1]
    if call.is_mixed and call.is_label:
        shares = [*weights.columns(y)]
    elif call.is_mixed:
        targets = [weights.mix_arrays(*targets)]
    else:
        targets = targets[:1]
    z = F.cast(y, dtype)
    if_one, if_zero = F.softplus(-z), F.softplus(z)
    result = 0
    for t, share in zip(targets, shares, strict=True):
        valid = t != -1 if call.is_label else t == t
        t = (1 - call.label_smoothing) * t.astype(dtype) + call.label_smoothing / 2
        value = (t * if_one + (1 - t) * if_zero) * (share * valid).astype(dtype)
        if call.options.get("reduce", "mean") == "mean":
            count = len(y)
            if call.options.get("normalize", True):
                count = valid.sum().clip(1).astype(dtype)
            value = F.sum(value) / count
        result += value
    return F.cast(result, y.dtype)


_SMOOTHED = (
    F.softmax_cross_entropy,
    softmax_binary_cross_entropy,
    F.sigmoid_cross_entropy,
)
_OF_CLASSES = (*_SMOOTHED, F.accuracy, top_k_accuracy)
_HANDLERS: dict[Callable, Callable[[_Call], Any]] = {
    F.softmax_cross_entropy: _softmax_cross_entropy,
    softmax_binary_cross_entropy: _probabilities,
    F.accuracy: _accuracy_of_classes,
    top_k_accuracy: _accuracy_of_classes,
    F.sigmoid_cross_entropy: _multi_label,
    F.binary_accuracy: _multi_label,
    F.r2_score: _mixed_numbers,
    F.mean_squared_error: _mixed_numbers,
    F.mean_absolute_error: _mixed_numbers,
}
