"""Chooses between compiled loops and NumPy."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType

import numpy as np

from chainer_revive.cpu import numpy as with_numpy

available = find_spec("numba") is not None
wanted = available

THREAD = "chainer_revive"  # the name of the threads that loops share

# Is called once, as the first loop is compiled: some seconds, until all are on disk.
before_compiling: Callable[[], None] | None = None


def fastest(dtype: np.dtype) -> ModuleType:
    """Returns ``chainer_revive.cpu.numba``, or ``numpy`` where that has no loops."""
    return loops(dtype) or with_numpy


def loops(dtype: np.dtype) -> ModuleType | None:
    """Returns ``chainer_revive.cpu.numba`` if it is to compute on this dtype."""
    return _load() if wanted and dtype == np.float32 else None


@functools.cache
def _load() -> ModuleType | None:
    from chainer_revive.cpu import numba

    try:
        numba.threads.get_ready()
    except Exception as error:  # of whatever kind Numba has
        warnings.warn(
            f"Numba cannot be used, so that NumPy has to do: {error}. Install a Numba "
            "for this NumPy, or uninstall it; if it finds no folder for its cache, set "
            "NUMBA_CACHE_DIR.",
            stacklevel=2,
        )
        return None
    return numba
