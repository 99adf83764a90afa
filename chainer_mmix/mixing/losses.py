from __future__ import annotations

import math

import chainer
import chainer.functions as F
import numpy as np
from chainer import backend
from chainer.functions.activation.log_softmax import _log_softmax
from chainer.utils import type_check

from chainer_mmix.checks import check_share
from chainer_mmix.mixing.targets import check_range
from chainer_mmix.mixing.weights import Weights
from chainer_revive.cpu import cross_entropy as on_cpu
from chainer_revive.cpu import steps
from chainer_revive.cpu.function_node import unwatched, variable
from chainer_revive.cuda import cross_entropy as on_gpu
from chainer_revive.either import either

_in_one_pass = either(on_cpu.cross_entropy, on_gpu.cross_entropy)


class MixupSoftmaxCrossEntropy(chainer.FunctionNode):
    """Lambda-weighted softmax cross entropy over two integer targets.

    One log-softmax serves both targets; the gradient is the softmax minus the two
    weighted one-hot vectors, smoothed if asked for.
    """

    def __init__(
        self, weights, normalize, class_weight, ignore_label, reduce, label_smoothing
    ) -> None:
        super().__init__()
        self.weights = weights
        self.label_smoothing = label_smoothing
        self.normalize = normalize
        self.class_weight = class_weight
        self.ignore_label = ignore_label
        self.reduce = reduce

    def check_type_forward(self, in_types) -> None:
        type_check._argname(in_types, ("x", "target_a", "target_b"))
        x, *targets = in_types
        type_check.expect(x.dtype.kind == "f", x.ndim > 1)
        for t in targets:
            type_check.expect(
                t.dtype.kind == "i",
                t.ndim == x.ndim - 1,
                t.shape[0] == x.shape[0],
                t.shape[1:] == x.shape[2:],
            )

    def forward(self, inputs):
        self.retain_inputs((0, 1, 2))
        x, *targets = inputs
        if self.reduce == "mean" and self.class_weight is None:
            result = _in_one_pass(
                *(x, targets, self.weights.pair, self.ignore_label),
                *(self.normalize, self.label_smoothing),
            )
            if result is not NotImplemented:
                loss, self._gradient, *_ = result
                return (loss,)
        self._gradient = None
        return (self._weigh(x, targets),)

    def _weigh(self, x, targets):
        """Returns the loss, and keeps what its gradient needs."""
        xp = backend.get_array_module(x)
        n, c = x.shape[:2]
        d = math.prod(x.shape[2:])
        self._log_p = _log_softmax(x).reshape(n, c, d)
        # Sums run in float32 at least, as in Chainer.
        dtype = np.promote_types(x.dtype, np.float32)
        lam = xp.asarray(self.weights.first, dtype).reshape(-1, 1)
        rows, columns = xp.arange(n)[:, None], xp.arange(d)
        loss = xp.zeros((n, d), dtype)
        class_weight = None
        if self.class_weight is not None:
            class_weight = xp.asarray(self.class_weight, dtype)
        self._hits = []
        self._smooth = xp.zeros((n, d), dtype)  # the weight of every class
        for target, share in zip(targets, (lam, 1 - lam), strict=True):
            t = target.reshape(n, d)
            valid = t != self.ignore_label
            check_range(t, c, self.ignore_label)
            t = xp.where(valid, t, 0)
            weight = share * valid
            if self.reduce == "mean":
                count = valid.sum() if self.normalize else xp.asarray(n)
                weight /= xp.maximum(count, 1).astype(dtype)
            if self.label_smoothing:
                self._smooth += weight * (self.label_smoothing / c)
                weight *= 1 - self.label_smoothing
            if class_weight is not None:
                weight *= class_weight[t]
            label = (rows, t, columns)
            loss -= weight * self._log_p[label]
            self._hits.append((label, weight))
        if self.label_smoothing:
            # Each class counts with its own weight, as in PyTorch.
            self._smooth = xp.broadcast_to(self._smooth[:, None], self._log_p.shape)
            if class_weight is not None:
                self._smooth = self._smooth * class_weight[:, None]
            loss -= (self._smooth * self._log_p).sum(axis=1)
        loss = loss.sum() if self.reduce == "mean" else loss.reshape(target.shape)
        return xp.asarray(loss, x.dtype)

    def backward(self, indexes, grad_outputs):
        (gy,) = grad_outputs
        is_array = unwatched()
        if self._gradient is not None and is_array:
            xp = backend.get_array_module(gy)
            gx = xp.empty_like(self._gradient, dtype=self.inputs[0].dtype)
            steps.do(xp.multiply, self._gradient, gy.array, gx)
            return variable(gx), None, None
        x, *targets = self.get_retained_inputs()
        if self._gradient is not None:
            self._weigh(x.array, [t.array for t in targets])
        xp = backend.get_array_module(x)
        target = xp.zeros(self._log_p.shape, self._smooth.dtype)
        total = 0
        for label, weight in self._hits:
            target[label] += weight
            total += weight
        if self.label_smoothing:
            target += self._smooth
            total += self._smooth.sum(axis=1)
        if self.reduce == "no":
            gy = F.expand_dims(gy, 1)
        if is_array:
            p = xp.exp(self._log_p).reshape(x.shape)
            gy = gy.array
        else:
            p = F.cast(F.softmax(x), total.dtype)
            gy = F.cast(gy, total.dtype)
        total = total.reshape((len(x), 1, *x.shape[2:]))
        gx = (p * total - target.reshape(x.shape)) * gy
        return F.cast(gx, x.dtype), None, None


def mixup_softmax_cross_entropy(
    x,
    target_a,
    target_b,
    lam,
    normalize: bool = True,
    class_weight=None,
    ignore_label: int = -1,
    reduce: str = "mean",
    label_smoothing: float = 0.0,
) -> chainer.Variable:
    r"""Softmax cross entropy of mixed samples, over both of their targets.

    It equals, in value and gradient,
    :math:`\lambda\,\mathrm{CE}(x, t_a) + (1 - \lambda)\,\mathrm{CE}(x, t_b)` with
    :func:`chainer.functions.softmax_cross_entropy`, but passes over ``x`` once. It
    supports double backpropagation.

    Source: ``mixup_criterion`` of the mixup authors' published code.

    Args:
        x (~chainer.Variable or array): Logits, a float array of shape
            :math:`(N, C, d_1, ...)`.
        target_a (~chainer.Variable or array): Labels of the first partners, a signed
            integer array of shape :math:`(N, d_1, ...)`.
        target_b (~chainer.Variable or array): Labels of the second partners, of the
            same shape.
        lam (float or array): Weight of ``target_a``: a number or an array of shape
            :math:`(N,)` with one per sample.
        normalize (bool): If ``True``, the mean is over the elements whose label is
            not ignored, counted for each target; else over the batch size. The
            default is ``True``.
        class_weight (array): Float array of shape :math:`(C,)` that weighs each
            element by its label, or ``None``. The mean does not divide by it.
        ignore_label (int): Elements with this label do not count. The default is -1.
        reduce (str): ``"mean"`` for a scalar or ``"no"`` for an array of the shape of
            the targets.
        label_smoothing (float): The share in :math:`[0, 1]` of each target that is
            spread evenly over all :math:`C` classes. The default is 0.

    Returns:
        ~chainer.Variable: The loss, of the dtype of ``x``.

    Raises:
        ValueError: If a label is out of range (on a GPU: in Chainer's debug mode
            only), ``lam`` does not fit, ``label_smoothing`` is outside
            :math:`[0, 1]`, or ``reduce`` is unknown.
    """
    if reduce not in ("mean", "no"):
        raise ValueError(f"reduce must be 'mean' or 'no', not {reduce!r}")
    check_share("label_smoothing", label_smoothing)
    node = MixupSoftmaxCrossEntropy(
        Weights.of(lam, len(x)),
        normalize,
        class_weight,
        ignore_label,
        reduce,
        label_smoothing,
    )
    return node.apply((x, target_a, target_b))[0]
