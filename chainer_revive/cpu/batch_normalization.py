"""Batch normalisation over all axes but the channels', in few passes over memory.

The public functions stand for methods of Chainer's and return ``NotImplemented`` for
what they do not cover.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from chainer.functions.normalization.batch_normalization import (
    GeneralBatchNormalizationImpl,
)

from chainer_revive.cpu import compiled
from chainer_revive.cpu.columns import buffer
from chainer_revive.cpu.layout import (
    channels_first,
    channels_last,
    covered,
    is_channels_last,
)

_SMALL = 1 << 15  # elements for which Chainer is as fast
_PIXELS = 64  # of an image with channels first that is worth its transposition
_PIECE = 1 << 16  # elements that stay in the cache
_WIDTH = 512  # elements that make up for a call of NumPy's inner loop


def forward(
    self,
    axis,
    gamma,
    x,
    x_layout,
    xp,
    expander,
    beta,
    eps,
    decay,
    running_mean,
    running_var,
):
    """For ``GeneralBatchNormalizationImpl``."""
    if not _covers(self, axis, gamma, x, beta):
        return NotImplemented
    x = channels_last(x)
    y = np.empty_like(x)
    mean, var, inv_std = _normalize(x, gamma, beta, eps, y)
    if running_mean is not None:
        m = x.size // gamma.size
        adjust = m / max(m - 1.0, 1.0)  # unbiased estimation
        running_mean *= decay
        running_mean += (1 - decay) * mean
        running_var *= decay
        running_var += (1 - decay) * adjust * var
    y = channels_first(y)
    return y, x_layout, running_mean, running_var, mean, var, inv_std, None


def backward(
    self,
    axis,
    gamma,
    gy,
    x,
    x_layout,
    xp,
    expander,
    mean,
    inv_std,
    eps,
    var,
    forward_data,
):
    """For ``GeneralBatchNormalizationImpl``."""
    if not _covers(self, axis, gamma, x, gy):
        return NotImplemented
    x, gy = channels_last(x), channels_last(gy)
    gx = np.empty_like(x)
    ggamma, gbeta = _gradients(x, gy, gamma, mean, inv_std, gx)
    return channels_first(gx), x_layout, ggamma, gbeta


def apply(xp, x, mean, inv_std, gamma, beta):
    """For ``_apply_bn_fwd``, which normalises with given statistics."""
    if not covered(x, mean, inv_std, gamma, beta):
        return NotImplemented
    loops = compiled.loops(x.dtype)
    if (
        loops
        and mean.ndim == x.ndim
        and mean.shape[1] == mean.size == x.shape[1]
        and is_channels_last(x)
    ):
        c = mean.size
        x = channels_last(x)
        y = np.empty_like(x)
        values = mean.reshape(c), (inv_std * gamma).reshape(c), beta.reshape(c)
        loops.bn_apply(x.reshape(-1, c), *values, y.reshape(-1, c))
        return channels_first(y)
    y = x - mean
    y *= inv_std * gamma
    y += beta
    return y


def _covers(self, axis, gamma, x, other) -> bool:
    return (
        # A subclass computes its statistics over several processes.
        type(self) is GeneralBatchNormalizationImpl
        and covered(x, gamma, other)
        and gamma.shape == x.shape[1:2]
        and other.shape in (x.shape, gamma.shape)
        and axis == (0, *range(2, x.ndim))
        and (compiled.loops(x.dtype) or _pays(x))
    )


def _pays(x) -> bool:
    """Tells whether NumPy gains anything on Chainer."""
    pixels = x.size // (x.shape[0] * x.shape[1])
    return x.size >= _SMALL and (pixels <= _PIXELS or is_channels_last(x))


def _normalize(x, gamma, beta, eps, y) -> tuple[np.ndarray, ...]:
    """Normalises (..., C) arrays into y; returns mean, variance and 1 / deviation."""
    if loops := compiled.loops(x.dtype):
        c = len(gamma)
        return loops.bn_forward(x.reshape(-1, c), gamma, beta, eps, y.reshape(-1, c))
    rows = _Rows(x)
    mean = (rows.sums(x) / rows.m).astype(x.dtype)
    shift = rows.spread(mean)
    squares = rows.zeros()
    for xs, ys in rows.pieces(x, y):
        w = xs.shape[1]
        np.subtract(xs, shift[:w], out=ys)
        squares[:w] += np.square(ys, out=buffer("piece", ys.shape, ys.dtype)).sum(0)
    var = (rows.join(squares) / rows.m).astype(x.dtype)
    inv_std = np.reciprocal(np.sqrt(var + eps, dtype=x.dtype))
    scale, shift = rows.spread(inv_std * gamma), rows.spread(beta)
    for (ys,) in rows.pieces(y):
        w = ys.shape[1]
        ys *= scale[:w]
        ys += shift[:w]
    return mean, var, inv_std


def _gradients(x, gy, gamma, mean, inv_std, gx) -> tuple[np.ndarray, np.ndarray]:
    """Writes the gradient by x of (..., C) arrays; returns those by gamma and beta."""
    if loops := compiled.loops(x.dtype):
        c = len(gamma)
        x, gy, gx = (a.reshape(-1, c) for a in (x, gy, gx))
        return loops.bn_backward(x, gy, gamma, mean, inv_std, gx)
    rows = _Rows(x)
    shift = rows.spread(mean)
    products = rows.zeros()
    for xs, gys, gxs in rows.pieces(x, gy, gx):
        w = xs.shape[1]
        np.subtract(xs, shift[:w], out=gxs)
        product = buffer("piece", gxs.shape, gxs.dtype)
        products[:w] += np.multiply(gxs, gys, out=product).sum(0)
    ggamma = rows.join(products) * inv_std
    gbeta = rows.sums(gy)
    # gx = scale * (gy - (x_hat * ggamma + gbeta) / m), with gx = x - mean so far
    scale = gamma * inv_std
    slope = rows.spread((-scale * inv_std * ggamma / rows.m).astype(x.dtype))
    shift = rows.spread((-scale * gbeta / rows.m).astype(x.dtype))
    scale = rows.spread(scale)
    for gys, gxs in rows.pieces(gy, gx):
        w = gxs.shape[1]
        gxs *= slope[:w]
        gxs += np.multiply(gys, scale[:w], out=buffer("piece", gxs.shape, gxs.dtype))
        gxs += shift[:w]
    return ggamma.astype(x.dtype), gbeta.astype(x.dtype)


class _Rows:
    """A (..., C) array as a matrix with C columns, in pieces that stay in the cache.

    Where C is small, some rows are joined to one, so that NumPy's inner loops are long;
    values a channel have to be spread likewise.
    """

    def __init__(self, x: np.ndarray) -> None:
        self.c = x.shape[-1]
        self.m = x.size // self.c
        self.joined = min(self.m, max(1, _WIDTH // self.c))

    def pieces(self, *arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
        """Yields matching pieces of the arrays."""
        arrays = [array.reshape(-1, self.c) for array in arrays]
        whole = self.m // self.joined * self.joined
        for start, stop, joined in ((0, whole, self.joined), (whole, self.m, 1)):
            step = max(1, _PIECE // (self.c * joined)) * joined
            for i in range(start, stop, step):
                piece = slice(i, min(i + step, stop))
                views = [array[piece].reshape(-1, joined * self.c) for array in arrays]
                yield views

    def spread(self, values: np.ndarray) -> np.ndarray:
        return np.tile(values, self.joined)

    def zeros(self) -> np.ndarray:
        return np.zeros(self.joined * self.c)

    def join(self, sums: np.ndarray) -> np.ndarray:
        return sums.reshape(self.joined, self.c).sum(0)

    def sums(self, x: np.ndarray) -> np.ndarray:
        """Sums each channel in float64, piece by piece."""
        total = self.zeros()
        for (xs,) in self.pieces(x):
            total[: xs.shape[1]] += xs.sum(0)
        return self.join(total)
