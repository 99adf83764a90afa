from __future__ import annotations

import chainer
import numpy as np

from chainer_mmix.mixing import kernels
from chainer_mmix.mixing.weights import Weights
from chainer_revive import registry
from chainer_revive.cpu.function_node import gradients, unwatched

# Rows are mixed in chunks of this size, so that the intermediate values stay in cache.
_CHUNK_BYTES = 1 << 17


class Mix(chainer.FunctionNode):
    """``y[n] = a[n] * x[n] + b[n] * x[perm[n]]``, computed in float32 or better.

    The gradient is the same function with the inverse permutation, so that it needs
    no scatter-add and is differentiable as often as one likes.

    Args:
        weights (Weights): a and b.
        perm: A permutation of the integers below N, checked by the weights.
    """

    def __init__(self, weights: Weights, perm) -> None:
        super().__init__()
        self.weights = weights
        self.perm = perm

    def forward_cpu(self, inputs):
        (x,) = inputs
        y = kernels.mix_on_cpu(x, *self.weights.pair, self.perm)
        if y is not NotImplemented:
            return (y,)
        dtype = np.promote_types(x.dtype, np.float32)
        column = (-1,) + (1,) * (x.ndim - 1)
        a, b = (np.full(len(x), w, dtype).reshape(column) for w in self.weights.pair)
        y = np.empty_like(x)
        rows = max(1, _CHUNK_BYTES * len(x) // max(1, x.nbytes))
        for start in range(0, len(x), rows):
            chunk = slice(start, start + rows)
            mixed = x[self.perm[chunk]] * b[chunk]
            mixed += x[chunk] * a[chunk]
            y[chunk] = mixed
        return (y,)

    def forward_gpu(self, inputs):
        (x,) = inputs
        registry.decide()  # if it waits for the first call on a GPU, this may be it
        a, b, perm = self.weights.for_kernel(x.dtype, self.perm)
        mix = kernels.mix_plainly if registry.is_left_off("mix") else kernels.mix
        return (mix(x, a, b, perm),)

    def backward(self, indexes, grad_outputs):
        return _gradient(Mix(*self.weights.inverse(self.perm)), grad_outputs)


def _gradient(function: Mix, grad_outputs: tuple) -> tuple:
    if not unwatched():
        return function.apply(grad_outputs)
    return gradients(function.forward((grad_outputs[0].array,)))


def check_array(x, name: str) -> None:
    """Raises a TypeError unless something is an array or a Variable."""
    if not hasattr(x, "dtype"):
        raise TypeError(f"{name} must be an array, not {type(x).__name__}")


def mix(x, lam, perm) -> chainer.Variable:
    r"""Mixes each sample with a partner from the same batch.

    .. math:: y_n = \lambda_n x_n + (1 - \lambda_n) x_{\pi(n)}

    The gradient flows to both partners. Half precision is mixed in float32 and
    rounded once.

    Source: equation 1 of arXiv 1806.05236.

    Args:
        x (~chainer.Variable or array): Float array of shape :math:`(N, ...)`, NumPy
            or CuPy.
        lam (float or array): Weight of the first partner in :math:`[0, 1]`: a number
            for the whole batch, or an array of shape :math:`(N,)` with one per sample.
        perm (array): Integers of shape :math:`(N,)`, a permutation of
            :math:`0, ..., N - 1`.

    Returns:
        ~chainer.Variable: The mixed samples, of the shape and dtype of ``x``.

    Raises:
        TypeError: If ``x`` is not of a float dtype.
        ValueError: If ``lam`` is outside :math:`[0, 1]`, or if ``lam`` or ``perm``
            does not fit ``x``.
    """
    check_array(x, "x")
    n = len(x)
    if x.dtype.kind != "f":
        raise TypeError(
            f"x has dtype {x.dtype}, which cannot be mixed: convert it to float32, or "
            "mix a hidden state, such as the output of an embedding"
        )
    weights = Weights.of(lam, n)
    return Mix(weights, weights.check_perm(perm, x.shape)).apply((x,))[0]
