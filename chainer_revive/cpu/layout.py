"""Memory layouts: images keep their channels last behind the usual (N, C, H, W)."""

from __future__ import annotations

import functools

import numpy as np

from chainer_revive.cpu import steps

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

NOT_COVERED = "it is for non-empty NumPy arrays of one dtype, float32 or float64"


def covered(*arrays) -> bool:
    """Tells whether all are non-empty NumPy arrays of one dtype, float32 or float64."""
    dtype = getattr(arrays[0], "dtype", None)
    if dtype not in _DTYPES:
        return False
    for a in arrays:
        if type(a) is not np.ndarray or a.dtype != dtype or not a.size:
            return False
    return True


def is_channels_last(x: np.ndarray) -> bool:
    """Tells whether the memory of an (N, C, ...) array is that of an (N, ..., C)."""
    return x.transpose(_last(x.ndim)).flags.c_contiguous


def channels_last(x: np.ndarray) -> np.ndarray:
    """Returns the values of an (N, C, ...) array as a contiguous (N, ..., C)."""
    return steps.contiguous(x.transpose(_last(x.ndim)))


def channels_first(x: np.ndarray) -> np.ndarray:
    """Views an (N, ..., C) array as (N, C, ...)."""
    return x.transpose(_first(x.ndim))


@functools.cache
def _last(ndim: int) -> tuple[int, ...]:
    return 0, *range(2, ndim), 1


@functools.cache
def _first(ndim: int) -> tuple[int, ...]:
    return 0, ndim - 1, *range(1, ndim - 1)
