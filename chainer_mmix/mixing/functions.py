from __future__ import annotations

import weakref

import chainer
import numpy as np
from chainer.backends import cuda
from chainer.utils import type_check

from chainer_mmix.mixing import kernels
from chainer_mmix.mixing.policy import current_draw

# Rows are mixed in chunks of this size, so that the intermediate values stay in cache.
_CHUNK_BYTES = 1 << 17


class Mix(chainer.FunctionNode):
    """``y[n] = a[n] * x[n] + b[n] * x[perm[n]]``, computed in float32 or better.

    The gradient is the same function with the inverse permutation, so that it needs
    no scatter-add and is differentiable as often as one likes.

    Args:
        a, b: Scalars or arrays of shape (N,), in host memory.
        perm: A permutation of the integers below N, in host memory.
    """

    def __init__(self, a, b, perm: np.ndarray) -> None:
        super().__init__()
        self.a = a
        self.b = b
        self.perm = perm

    def check_type_forward(self, in_types) -> None:
        type_check._argname(in_types, ("x",))
        type_check.expect(in_types[0].dtype.kind == "f", in_types[0].ndim > 0)

    def _weights(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        dtype = np.promote_types(dtype, np.float32)
        return np.asarray(self.a, dtype), np.asarray(self.b, dtype)

    def forward_cpu(self, inputs):
        (x,) = inputs
        column = (-1,) + (1,) * (x.ndim - 1)
        a, b = (
            np.broadcast_to(w, len(x)).reshape(column) for w in self._weights(x.dtype)
        )
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
        a, b = (cuda.to_gpu(w) if w.ndim else w[()] for w in self._weights(x.dtype))
        return (kernels.mix(x, a, b, cuda.to_gpu(self.perm.astype(np.int32))),)

    def backward(self, indexes, grad_outputs):
        inverse = np.argsort(self.perm)
        b = self.b[inverse] if np.ndim(self.b) else self.b
        return Mix(self.a, b, inverse).apply(grad_outputs)


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
            for the whole batch or an array of shape :math:`(N,)`, one a sample.
        perm (array): Integers of shape :math:`(N,)`, a permutation of
            :math:`0, ..., N - 1`.

    Returns:
        ~chainer.Variable: The mixed samples, of the shape and dtype of ``x``.

    Raises:
        ValueError: If ``lam`` is outside :math:`[0, 1]`, or if ``lam`` or ``perm``
            does not fit ``x``.
    """
    n = len(x)
    lam = check_lam(lam, n)
    perm = np.array(cuda.to_cpu(perm))  # kept for the gradient
    if perm.shape != (n,) or not np.array_equal(np.sort(perm), np.arange(n)):
        raise ValueError(
            f"perm must be a permutation of 0, ..., {n - 1} of shape ({n},), since x "
            f"has shape {x.shape}, but perm has shape {perm.shape}: {perm}"
        )
    return Mix(lam, 1 - lam, perm).apply((x,))[0]


def check_lam(lam, n: int) -> float | np.ndarray:
    """Returns a copy of ``lam``: a Python float, or a float64 array of shape (n,)."""
    lam = np.array(cuda.to_cpu(lam), np.float64)
    if lam.shape not in ((), (n,)):
        raise ValueError(
            f"lam must be a number or an array of shape ({n},), one a sample of the "
            f"batch, but it has shape {lam.shape}"
        )
    if not np.all((lam >= 0) & (lam <= 1)):  # NaN fails both
        raise ValueError(f"lam must lie in [0, 1], not {lam}")
    # A NumPy scalar would promote float32 arrays to float64.
    return lam if lam.ndim else float(lam)


def mixup_data(x, target, lam, perm=None):
    r"""Mixes a batch and tells which two targets each mixed sample has.

    This is the call that a link makes at the mixing point, and there only. Within
    :class:`~chainer_mmix.ManifoldMixupClassifier` the partners come from its policy;
    elsewhere they are drawn from :mod:`numpy.random`. Do not call it within
    :func:`chainer.functions.forget`, which would draw other partners when it computes
    again.

    Source: ``mixup_process`` of the paper's published code.

    Args:
        x (~chainer.Variable or array): Float array of shape :math:`(N, ...)`: the
            input or a hidden state.
        target (~chainer.Variable or array): Array of shape :math:`(N, ...)`.
        lam (float or array): See :func:`~chainer_mmix.mix`.
        perm (array): See :func:`~chainer_mmix.mix`; ``None`` to have it drawn.

    Returns:
        tuple: ``(mixed, target_a, target_b)``: the mixed samples, their targets, and
        those of their partners, ``target[perm]``.

    Raises:
        ValueError: If ``x`` and ``target`` differ in length, if ``lam`` is not the
            one that the classifier gave to the link, and as
            :func:`~chainer_mmix.mix`.
    """
    if len(x) != len(target):
        raise ValueError(
            f"x has {len(x)} samples (shape {x.shape}) but target has {len(target)} "
            f"(shape {target.shape})"
        )
    draw = current_draw()
    if perm is None:
        perm = np.random.permutation(len(x)) if draw is None else draw.perm
    mixed = mix(x, lam, perm)
    if draw is not None:
        if not np.array_equal(check_lam(lam, len(x)), draw.lam):
            raise ValueError(
                f"lam is {lam}, but the link was called with lam={draw.lam}: pass that "
                "on, since the loss is weighted by it"
            )
        draw.times_mixed += 1
        draw.mixed = weakref.ref(mixed.node) if chainer.config.enable_backprop else None
    device = chainer.backend.get_device_from_array(chainer.as_array(target))
    return mixed, target, target[device.send(np.asarray(cuda.to_cpu(perm)))]
