"""Memory layouts: images keep their channels last behind the usual (N, C, H, W)."""

from __future__ import annotations

import numpy as np

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def covered(*arrays) -> bool:
    """Tells whether all are non-empty NumPy arrays of one dtype, float32 or float64."""
    dtype = arrays[0].dtype
    return dtype in _DTYPES and all(
        type(a) is np.ndarray and a.dtype == dtype and a.size for a in arrays
    )


def channels_last(x: np.ndarray) -> np.ndarray:
    """Returns the values of an (N, C, H, W) array as a contiguous (N, H, W, C)."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def channels_first(x: np.ndarray) -> np.ndarray:
    """Views an (N, H, W, C) array as (N, C, H, W)."""
    return x.transpose(0, 3, 1, 2)
