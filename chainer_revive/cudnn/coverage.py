"""The arrays that cuDNN gets."""

from __future__ import annotations

import chainer
import numpy as np

_DTYPES = (np.dtype(np.float16), np.dtype(np.float32))


def covered(xp, *arrays) -> bool:
    """Tells whether all are non-empty arrays of xp and of one dtype, half or single."""
    dtype = arrays[0].dtype
    return (
        dtype in _DTYPES
        and chainer.config.use_cudnn != "never"
        and all(
            isinstance(a, xp.ndarray) and a.dtype == dtype and a.size for a in arrays
        )
    )
