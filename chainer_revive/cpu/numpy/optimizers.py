"""Update rules in pieces that stay in the cache, rounded as Chainer rounds them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chainer_revive.cpu.buffers import buffer

PIECE = 1 << 15  # elements


def momentum_sgd(tensors, rates) -> None:
    """See :func:`chainer_revive.cpu.numba.optimizers.momentum_sgd`."""
    for arrays, (lr, momentum) in zip(tensors, rates, strict=True):
        for p, g, v, change in _pieces(*arrays):
            np.multiply(lr, g, out=change)
            v *= momentum
            v -= change
            p += v


def adam(tensors, rates) -> None:
    """See :func:`chainer_revive.cpu.numba.optimizers.adam`."""
    for arrays, rates_ in zip(tensors, rates, strict=True):
        _adam(_pieces(*arrays), *rates_)


def _adam(pieces, alpha, rate1, rate2, eps, eta, keep) -> None:
    for p_, g_, m_, v_, change in pieces:
        np.subtract(g_, m_, out=change)
        change *= rate1
        m_ += change
        np.multiply(g_, g_, out=change)
        change -= v_
        change *= rate2
        v_ += change
        np.sqrt(v_, out=change)
        change += eps
        np.divide(alpha, change, out=change)
        change *= m_
        change *= -eta
        if keep != 1:
            p_ *= keep
        p_ += change


def _pieces(*arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Yields matching pieces of the arrays, and memory of the same size."""
    flat = [a.reshape(-1) for a in arrays]
    memory = buffer("piece", (PIECE,), flat[0].dtype)
    for start in range(0, len(flat[0]), PIECE):
        views = [a[start : start + PIECE] for a in flat]
        yield [*views, memory[: len(views[0])]]
