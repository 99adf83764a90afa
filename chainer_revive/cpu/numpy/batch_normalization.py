"""Batch normalisation of matrices (M, C), in three passes over memory each way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chainer_revive.cpu.buffers import buffer

_PIECE = 1 << 16  # elements that stay in the cache
_WIDTH = 512  # elements that make up for a call of NumPy's inner loop


def forward(x, gamma, beta, eps, y) -> tuple[np.ndarray, ...]:
    """Normalises x into y; returns mean, variance and 1 / deviation."""
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


def backward(x, gy, gamma, mean, inv_std, gx) -> tuple[np.ndarray, np.ndarray]:
    """Writes the gradient by x; returns the gradients by gamma and beta."""
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
    """A matrix (M, C), in pieces that stay in the cache.

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
