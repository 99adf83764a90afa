"""Memory layouts: images keep their channels last behind the usual (N, C, H, W).

Arrays are NumPy's or CuPy's; both have ``transpose`` and ``flags``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
    """An array as plans see it: its dtype, its shape, and its strides in elements."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def channels_last(cls, dtype, shape: tuple[int, int, int, int]) -> Tensor:
        _, c, h, w = shape
        return cls(np.dtype(dtype).char, shape, (c * h * w, 1, c * w, c))

    @classmethod
    def contiguous(cls, dtype, shape: tuple[int, int, int, int]) -> Tensor:
        _, c, h, w = shape
        return cls(np.dtype(dtype).char, shape, (c * h * w, h * w, w, 1))

    @classmethod
    def per_channel(cls, n: int) -> Tensor:
        return cls("f", (1, n, 1, 1), (n, 1, n, n))


def is_channels_last(x) -> bool:
    """Tells whether the memory of an (N, C, H, W) array is that of an (N, H, W, C)."""
    return x.ndim == 4 and not x.flags.c_contiguous and last(x).flags.c_contiguous


def last(x):
    """Views an (N, C, H, W) array as (N, H, W, C)."""
    return x.transpose(0, 2, 3, 1)


def first(x):
    """Views an (N, H, W, C) array as (N, C, H, W)."""
    return x.transpose(0, 3, 1, 2)


def channels_last(xp, x):
    """Returns an (N, C, H, W) array with its channels last in memory."""
    return first(xp.ascontiguousarray(last(x)))


def empty(xp, tensor: Tensor):
    """Allocates the array that is described, channels last."""
    n, c, h, w = tensor.shape
    return first(xp.empty((n, h, w, c), tensor.dtype))
