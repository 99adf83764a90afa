"""Softmax cross entropy and accuracy of weighted labels, in one CUDA kernel each.

Both functions take what those of :mod:`chainer_revive.cpu.cross_entropy` take,
and return ``NotImplemented`` for what they do not cover. Neither waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import chainer
import numpy as np
from chainer import backend

from chainer_revive import registry
from chainer_revive.cuda import current
from chainer_revive.cuda.kernels import WARPS, labels_source

_MANY = 1 << 18  # logits: with more, one block takes too long
_NO_LABEL = np.iinfo(np.int64).min


def cross_entropy(
    x,
    targets: Sequence,
    weights: Sequence,
    ignore_label: int,
    normalize: bool,
    label_smoothing: float = 0.0,
):
    """Returns the loss and its gradient, which is of float32."""
    # In debug mode labels are checked.
    name = "cuda/cross_entropy:cross_entropy"
    if not _covers(name, x, targets, ignore_label) or chainer.is_debug():
        return NotImplemented
    xp = backend.get_array_module(x)
    loss, gradient = xp.empty((), x.dtype), xp.empty(x.shape, np.float32)
    options = np.int32(normalize), np.float32(label_smoothing)
    _launch(
        "cross_entropy", x, targets, weights, ignore_label, *options, gradient, loss
    )
    return loss, gradient


def accuracy(y, targets: Sequence, weights: Sequence, ignore_label: int | None = None):
    """Returns the weighted accuracy."""
    if ignore_label is None:
        ignore_label = _NO_LABEL
    if not _covers("cuda/cross_entropy:accuracy", y, targets, ignore_label):
        return NotImplemented
    result = backend.get_array_module(y).empty((), y.dtype)
    _launch("accuracy", y, targets, weights, ignore_label, result)
    return result


def _covers(name: str, x, targets: Sequence, ignore_label) -> bool:
    launcher = current.launcher
    return (
        launcher is not None
        and not registry.is_left_off(name)
        and type(x) is launcher.array_type
        and x.ndim == 2
        and 0 < x.size <= _MANY
        and x.dtype in (np.float16, np.float32)
        and targets[0].dtype in (np.int32, np.int64)
        and all(
            type(t) is launcher.array_type
            and t.shape == x.shape[:1]
            and t.dtype == targets[0].dtype
            for t in targets
        )
        and isinstance(ignore_label, int)
    )


def _launch(name: str, x, targets, weights, ignore_label: int, *args) -> None:
    xp = backend.get_array_module(x)
    lam = weights[0]
    each = np.uintp(0)
    if np.ndim(lam):
        lam, each = 0.0, xp.ascontiguousarray(xp.asarray(lam, np.float64))
    # With one target, its weight is 1.
    a, b = (xp.ascontiguousarray(t) for t in (targets[0], targets[-1]))
    dtypes = x.dtype.name, a.dtype.name
    source, name = labels_source(*dtypes), "_".join(("mmix", name, *dtypes))
    sizes = np.int32(len(x)), np.int32(x.shape[1])
    x = xp.ascontiguousarray(x)
    arrays = x, a, b, each, np.float64(lam), *sizes, np.int64(ignore_label)
    current.launcher.one_block(source, name, (32, WARPS), *arrays, *args)
