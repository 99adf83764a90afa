"""Attacks with the fast gradient sign method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import chainer
import chainer.functions as F
import numpy as np
from chainer import backend

from chainer_mmix.analysis.predictions import accuracies, counted, ignored_by


def fgsm_accuracy(
    classifier: chainer.Link,
    batches: Iterable[tuple],
    eps: Sequence[float],
    clip: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Measures the accuracy under attack, for each size of the attack.

    Args:
        classifier (~chainer.Link): A link with a predictor of one input and a lossfun.
        batches (iterable of tuple): Inputs and targets.
        eps, clip: See :func:`fgsm`; several ``eps``.

    Returns:
        dict: The accuracies, named ``fgsm_accuracy/<eps>``.

    Raises:
        TypeError: As for :func:`~chainer_mmix.analysis.predictions.accuracies`, and if
            the input is not of a float dtype.
        ValueError: As for :func:`fgsm`.
    """
    label = ignored_by(classifier)

    def lossfun(y, t):
        counted(y, t, label)  # says what is wrong, which the loss may not
        return classifier.lossfun(y, t)

    def attacks(x, t):
        direction = gradient_sign(classifier.predictor, x, t, lossfun)
        for value in eps:
            yield f"fgsm_accuracy/{value:g}", fgsm(x, direction, value, clip)

    return accuracies(classifier, batches, attacks, "the fast gradient sign method")


def gradient_sign(
    predictor: chainer.Link, x, t, lossfun: Callable = F.softmax_cross_entropy
):
    """Computes the direction in which the loss grows, input by input.

    The network is in test mode. The gradients of its parameters stay as they are.

    Args:
        predictor (~chainer.Link): The network.
        x (array): Its input, a float array of shape (N, ...).
        t (array): Labels of shape (N,).
        lossfun (callable): The loss, called as ``lossfun(y, t)``.

    Returns:
        array: The sign of the gradient with respect to ``x``: -1, 0 and 1, of the
        shape and dtype of ``x``.

    Raises:
        RuntimeError: If the loss has no gradient with respect to the input.
        TypeError: If the input is not of a float dtype.
    """
    if x.dtype.kind != "f":
        raise TypeError(
            f"the input is of dtype {x.dtype}, and only floats have a gradient"
        )
    x = chainer.Variable(x)
    with chainer.using_config("train", False), chainer.force_backprop_mode():
        y = predictor(x)
        if isinstance(y, chainer.Variable) and y.dtype == np.float16:
            gradient = _gradient_through(y, t, x, lossfun)
        else:
            gradient = _gradient(lossfun(y, t), x)
    if gradient is None:
        raise RuntimeError(
            f"the output of {type(predictor).__name__} has no gradient with respect to "
            "its input: compute all of it with Chainer's functions"
        )
    return backend.get_array_module(x).sign(gradient.array)


def _gradient(loss: chainer.Variable, x: chainer.Variable):
    return chainer.grad([F.sum(loss) if loss.ndim else loss], [x])[0]


def _gradient_through(y: chainer.Variable, t, x: chainer.Variable, lossfun: Callable):
    """Computes a positive multiple of each sample's gradient, by half precision.

    That of a sample predicted with confidence would be below the least float16, and
    with it its sign.
    """
    scores = chainer.Variable(y.array.astype(np.float32))
    if getattr(t, "dtype", None) == np.float16:
        t = t.astype(np.float32)
    gradient = _gradient(lossfun(scores, t), scores)
    if gradient is None:
        return None
    array = gradient.array
    largest = abs(array).max(axis=tuple(range(1, array.ndim)), keepdims=True)
    array = (array / (largest + (largest == 0))).astype(y.dtype)
    return chainer.grad([y], [x], [chainer.Variable(array)])[0]


def fgsm(x, direction, eps: float, clip: tuple[float, float] | None = None):
    r"""Perturbs inputs by the fast gradient sign method.

    .. math:: x + \epsilon\,\mathrm{sign}(\nabla_x L)

    Source: Goodfellow et al., "Explaining and Harnessing Adversarial Examples", 2015.

    Args:
        x (array): The inputs.
        direction (array): What :func:`gradient_sign` returns for them.
        eps (float): By how much to change each number, in the units of the inputs.
        clip (tuple of float): The smallest and the largest number that an input may
            have; ``None``, the default, for no bounds.

    Returns:
        array: The perturbed inputs, of the shape and dtype of ``x``.

    Raises:
        ValueError: If an input is out of its bounds by more than a rounding.
    """
    if clip is not None and exceed(x, clip):
        raise ValueError(
            f"clip={clip} would change inputs by more than eps, since they go from "
            f"{float(x.min()):.4g} to {float(x.max()):.4g}: give their bounds, or none "
            "(clip=None)"
        )
    x = x + x.dtype.type(eps) * direction
    return x if clip is None else x.clip(*map(x.dtype.type, clip))


def exceed(x, bounds: tuple) -> bool:
    """Whether any input exceeds its bounds by more than a rounding.

    The bounds are two numbers, or two arrays, such as those of standardised channels.
    """
    low, high = bounds
    slack = 1e-3 * (high - low)
    return bool((x < low - slack).any() or (x > high + slack).any())
