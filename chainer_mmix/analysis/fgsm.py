"""Attacks with the fast gradient sign method."""

from __future__ import annotations

from collections.abc import Callable

import chainer
import chainer.functions as F
from chainer import backend


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
    """
    x = chainer.Variable(x)
    with chainer.using_config("train", False), chainer.force_backprop_mode():
        (gradient,) = chainer.grad([lossfun(predictor(x), t)], [x])
    if gradient is None:
        raise RuntimeError(
            f"the output of {type(predictor).__name__} has no gradient with respect to "
            "its input: compute all of it with Chainer's functions"
        )
    return backend.get_array_module(x).sign(gradient.array)


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
    """
    x = x + x.dtype.type(eps) * direction
    return x if clip is None else x.clip(*map(x.dtype.type, clip))
