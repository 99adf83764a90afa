from __future__ import annotations

import math
from collections.abc import Callable

import chainer
import chainer.functions as F
import numpy as np
from chainer import backend
from chainer.functions.activation.log_softmax import _log_softmax
from chainer.utils import type_check

from chainer_mmix.mixing.functions import check_lam


class MixupSoftmaxCrossEntropy(chainer.FunctionNode):
    """Lambda-weighted softmax cross entropy over two integer targets.

    One log-softmax serves both targets; the gradient is the softmax minus the two
    weighted one-hot vectors.
    """

    def __init__(self, lam, normalize, class_weight, ignore_label, reduce) -> None:
        super().__init__()
        self.lam = lam
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
        self.retain_inputs((0,))
        x, *targets = inputs
        xp = backend.get_array_module(x)
        n, c = x.shape[:2]
        d = math.prod(x.shape[2:])
        self._log_p = _log_softmax(x).reshape(n, c, d)
        # Sums run in float32 at least, as in Chainer.
        dtype = np.promote_types(x.dtype, np.float32)
        lam = xp.asarray(self.lam, dtype).reshape(-1, 1)
        rows, columns = xp.ogrid[:n, :d]
        self._terms = []
        loss = xp.zeros((n, d), dtype)
        for target, share in zip(targets, (lam, 1 - lam), strict=True):
            t = target.reshape(n, d)
            valid = t != self.ignore_label
            if xp is np or chainer.is_debug():  # a GPU would have to wait for it
                self._check_range(t[valid], c)
            t = xp.where(valid, t, 0)
            weight = share * valid
            if self.class_weight is not None:
                weight *= xp.asarray(self.class_weight, dtype)[t]
            if self.reduce == "mean":
                count = valid.sum() if self.normalize else xp.asarray(n)
                weight /= xp.maximum(count, 1).astype(dtype)
            label = (rows, t, columns)
            loss -= weight * self._log_p[label]
            self._terms.append((label, weight))
        loss = loss.sum() if self.reduce == "mean" else loss.reshape(target.shape)
        return (xp.asarray(loss, x.dtype),)

    def _check_range(self, t, n_class: int) -> None:
        bad = t[(t < 0) | (t >= n_class)]
        if bad.size:
            raise ValueError(
                f"labels must lie in [0, {n_class}), the number of outputs of the "
                f"predictor, or be ignore_label={self.ignore_label}; found {bad[0]}"
            )

    def backward(self, indexes, grad_outputs):
        (x,) = self.get_retained_inputs()
        (gy,) = grad_outputs
        xp = backend.get_array_module(x)
        total = sum(weight for _, weight in self._terms)
        one_hot = xp.zeros(self._log_p.shape, total.dtype)
        for label, weight in self._terms:
            one_hot[label] += weight
        if chainer.config.enable_backprop:  # double backpropagation
            p = F.softmax(x)
        else:
            p = chainer.Variable(xp.exp(self._log_p).reshape(x.shape))
        p = F.cast(p, total.dtype)
        total = total.reshape((len(x), 1, *x.shape[2:]))
        gx = p * F.broadcast_to(total, x.shape) - one_hot.reshape(x.shape)
        if self.reduce == "no":
            gy = F.expand_dims(gy, 1)
        gx *= F.broadcast_to(F.cast(gy, gx.dtype), x.shape)
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
            :math:`(N,)`, one a sample.
        normalize (bool): If ``True``, the mean is over the elements whose label is
            not ignored, counted for each target; else over the batch size. The
            default is ``True``.
        class_weight (array): Float array of shape :math:`(C,)` that weighs each
            element by its label, or ``None``. The mean does not divide by it.
        ignore_label (int): Elements with this label do not count. The default is -1.
        reduce (str): ``"mean"`` for a scalar or ``"no"`` for an array of the shape of
            the targets.

    Returns:
        ~chainer.Variable: The loss, of the dtype of ``x``.

    Raises:
        ValueError: If a label is out of range (on a GPU: in Chainer's debug mode
            only), ``lam`` does not fit, or ``reduce`` is unknown.
    """
    if reduce not in ("mean", "no"):
        raise ValueError(f"reduce must be 'mean' or 'no', not {reduce!r}")
    lam = check_lam(lam, len(x))
    node = MixupSoftmaxCrossEntropy(lam, normalize, class_weight, ignore_label, reduce)
    return node.apply((x, target_a, target_b))[0]


def mixup_accuracy(y, target_a, target_b, lam) -> chainer.Variable:
    r"""Lambda-weighted accuracy: a hit of the first target counts :math:`\lambda`.

    The accuracy of mixed samples against the first target alone says nothing: a
    network that predicts both partners perfectly would score the share of
    :math:`\lambda > 1/2`.

    Args:
        y (~chainer.Variable or array): Scores of shape :math:`(N, C, d_1, ...)`.
        target_a (~chainer.Variable or array): Labels, shape :math:`(N, d_1, ...)`.
        target_b (~chainer.Variable or array): Labels of the partners, likewise.
        lam (float or array): Weight of ``target_a``: a number or an array of shape
            :math:`(N,)`.

    Returns:
        ~chainer.Variable: A scalar of the dtype of ``y``; no gradient flows.
    """
    y, a, b = map(chainer.as_array, (y, target_a, target_b))
    xp = backend.get_array_module(y)
    lam = xp.asarray(check_lam(lam, len(y)), np.promote_types(y.dtype, np.float32))
    lam = lam.reshape((-1,) + (1,) * (a.ndim - 1))
    pred = y.argmax(axis=1).reshape(a.shape)
    score = lam * (pred == a) + (1 - lam) * (pred == b)
    return chainer.Variable(xp.asarray(score.mean(), y.dtype), requires_grad=False)


def mixup_criterion(criterion: Callable, y, target_a, target_b, lam):
    r"""Applies a criterion to both targets and weighs the results.

    :math:`\lambda\,\mathrm{criterion}(y, t_a) + (1 - \lambda)\,\mathrm{criterion}(y,
    t_b)`, which for :func:`chainer.functions.softmax_cross_entropy` and
    :func:`chainer.functions.accuracy` on class labels is computed in one pass.

    For a loss that is linear in the target, such as cross entropy, this equals the
    loss against the mixed target :math:`\lambda t_a + (1 - \lambda) t_b`. For others
    it does not: the mean squared error, say, then has another value (and the same
    gradient).

    Args:
        criterion (callable): Called with a prediction and a target, such as a loss
            function or an accuracy.
        y (~chainer.Variable): The prediction.
        target_a: Targets of the first partners.
        target_b: Targets of the second partners.
        lam (float or array): Weight of ``target_a``: a number, or an array of shape
            :math:`(N,)` if the criterion gives one value a sample.

    Returns:
        ~chainer.Variable: The weighted criterion; the mean over the batch if ``lam``
        is an array.

    Raises:
        ValueError: If ``lam`` is an array and the criterion gives one value a batch.
    """
    if target_a.ndim < y.ndim:  # class labels
        if criterion is F.softmax_cross_entropy:
            return mixup_softmax_cross_entropy(y, target_a, target_b, lam)
        if criterion is F.accuracy:
            return mixup_accuracy(y, target_a, target_b, lam)
    loss_a = criterion(y, target_a)
    loss_b = criterion(y, target_b)
    lam = check_lam(lam, len(y))
    if isinstance(lam, float):
        return lam * loss_a + (1 - lam) * loss_b
    if loss_a.shape[:1] != lam.shape:
        raise ValueError(
            f"lam has one value a sample, shape {lam.shape}, but {criterion!r} "
            f"returned shape {loss_a.shape}: let it return one value a sample "
            "(reduce='no')"
        )
    dtype = loss_a.dtype
    lam = lam.astype(dtype).reshape((-1,) + (1,) * (loss_a.ndim - 1))
    lam = chainer.backend.get_device_from_array(chainer.as_array(loss_a)).send(lam)
    lam, rest = (F.broadcast_to(w, loss_a.shape) for w in (lam, 1 - lam))
    return F.mean(lam * loss_a + rest * loss_b)
