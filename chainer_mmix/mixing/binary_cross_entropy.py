from __future__ import annotations

import chainer
import chainer.functions as F
import numpy as np
from chainer import backend

from chainer_mmix.mixing.targets import soft_target
from chainer_revive.cpu.function_node import unwatched, variable


class SoftmaxBinaryCrossEntropy(chainer.FunctionNode):
    """The mean of ``-t log(p) - (1 - t) log(1 - p)``, with the softmax p of the input.

    Only the largest p comes near 1, where log(1 - p) must be had from the others.

    Args:
        t (array): Probabilities, of the shape of the input.
    """

    def __init__(self, t) -> None:
        super().__init__()
        self.t = t

    def forward(self, inputs):
        self.retain_inputs((0,))
        (y,) = inputs
        xp = backend.get_array_module(y)
        dtype = np.promote_types(y.dtype, np.float32)
        t, y = self.t.astype(dtype, copy=False), y.astype(dtype, copy=False)
        largest = _largest(xp, y)
        first = y.max(axis=1, keepdims=True)
        others = xp.where(largest, -np.inf, y)
        second = others.max(axis=1, keepdims=True)
        exp_others = xp.exp(others - second)
        sum_others = exp_others.sum(axis=1, keepdims=True)
        # The sum of all exp(y - first)
        total = 1 + xp.exp(second - first) * sum_others
        log_p = y - first - xp.log(total)
        log_rest = second - first + xp.log(sum_others) - xp.log(total)
        p = xp.exp(log_p)
        p_others = xp.where(largest, 0, p)
        log_q = xp.where(largest, log_rest, xp.log1p(-p_others))
        loss = -(t * log_p + (1 - t) * log_q).mean()

        if chainer.config.enable_backprop:
            # p times the derivative by p; of the largest, that times 1 - p.
            slope = xp.where(largest, 0, (1 - t) * (p_others / (1 - p_others)) - t)
            t_largest, p_largest = (
                (a * largest).sum(axis=1, keepdims=True) for a in (t, p)
            )
            hit, miss = t_largest, (1 - t_largest) * p_largest
            share = exp_others / sum_others
            gy = slope + hit * p_others - miss * share
            gy += xp.where(largest, miss - hit * xp.exp(log_rest), 0)
            gy -= p * slope.sum(axis=1, keepdims=True)
            self._gradient = gy / y.size
        return (xp.asarray(loss, inputs[0].dtype),)

    def backward(self, indexes, grad_outputs):
        (gy,) = grad_outputs
        if unwatched():
            gx = self._gradient * gy.array
            return (variable(gx.astype(gy.dtype, copy=False)),)
        (y,) = self.get_retained_inputs()
        loss = _of_functions(y, self.t)
        return chainer.grad([loss], [y], [gy], enable_double_backprop=True)


def softmax_binary_cross_entropy(y, t) -> chainer.Variable:
    r"""Binary cross entropy of the softmax, the mean over samples and classes.

    With :math:`p = \mathrm{softmax}(y)`, it is the mean of
    :math:`-t_k \log p_k - (1 - t_k) \log(1 - p_k)`. This is what the paper's published
    code minimises. As long as all classes are about equally probable, its gradient is
    that of :func:`chainer.functions.softmax_cross_entropy` divided by :math:`C - 1`,
    so that plain SGD needs a larger learning rate. Neither large logits nor a sure
    prediction overflows. In half precision its gradient of many classes underflows
    without loss scaling.

    Source: ``bce_loss(softmax(output), target_reweighted)`` there.

    Args:
        y (~chainer.Variable or array): Logits, a float array of shape
            :math:`(N, C, d_1, ...)` with :math:`C > 1`.
        t (~chainer.Variable or array): Labels, an integer array of shape
            :math:`(N, d_1, ...)`, or a float array of the shape of ``y``: one-hot,
            mixed or smoothed targets.

    Returns:
        ~chainer.Variable: A scalar.

    Raises:
        ValueError: If there is one class only, a label is out of range, or ``t`` does
            not fit ``y``.
    """
    y = chainer.as_variable(y)
    if y.shape[1] == 1:
        raise ValueError(
            f"y has one class, shape {y.shape}, whose softmax is always 1: use "
            "chainer.functions.sigmoid_cross_entropy"
        )
    return SoftmaxBinaryCrossEntropy(soft_target(t, y)).apply((y,))[0]


def _of_functions(y: chainer.Variable, t) -> chainer.Variable:
    """The same of Chainer's functions, for the gradient of the gradient."""
    xp = backend.get_array_module(y)
    log_p = F.log_softmax(y)
    largest = _largest(xp, y.array)
    others = F.logsumexp(F.where(largest, xp.full_like(y.array, -np.inf), y), axis=1)
    log_rest = others - F.logsumexp(y, axis=1)
    log_rest = F.broadcast_to(F.expand_dims(log_rest, 1), y.shape)
    p = F.where(largest, xp.zeros_like(y.array), F.exp(log_p))
    log_q = F.where(largest, log_rest, F.log1p(-p))
    return -F.mean(t * log_p + (1 - t) * log_q)


def _largest(xp, y):
    """Tells which score is the largest of its sample, one each."""
    classes = xp.arange(y.shape[1]).reshape(-1, *[1] * (y.ndim - 2))
    return y.argmax(axis=1, keepdims=True) == classes
