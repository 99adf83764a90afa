"""Finds the compiled loops, if they are wanted and Numba is installed."""

from __future__ import annotations

import functools
import warnings
from importlib.util import find_spec
from types import ModuleType

import numpy as np

available = find_spec("numba") is not None
wanted = available


def loops(dtype: np.dtype) -> ModuleType | None:
    """Returns the module of loops if they are to be used on arrays of this dtype."""
    return _load() if wanted and dtype == np.float32 else None


@functools.cache
def _load() -> ModuleType | None:
    # Late: importing Numba takes as long as importing Chainer.
    try:
        from chainer_revive.cpu import loops
    except (ImportError, RuntimeError) as error:
        warnings.warn(
            f"Numba cannot be used, so that NumPy has to do: {error}. Install a Numba "
            "for this NumPy, or uninstall it; if it finds no folder for its cache, set "
            "NUMBA_CACHE_DIR.",
            stacklevel=2,
        )
        return None
    return loops
