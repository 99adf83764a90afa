"""Memory that is used again and again."""

from __future__ import annotations

import functools
import threading

import numpy as np


class _OfThread(threading.local):
    """Each thread has its own.

    Attributes:
        memories (dict): By name, what :func:`buffer` gives out.
        plans (dict): What relies on these memories, see
            :mod:`chainer_revive.cpu.numba.plans`.
    """

    def __init__(self) -> None:
        self.memories: dict = {}
        self.plans: dict = {}


of_thread = _OfThread()


def buffer(name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
    """Returns an array with arbitrary contents that this thread uses again and again.

    It is valid until this thread asks for the same ``name`` again.
    """
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for n in shape:
        size *= n
    memory = of_thread.memories.get(name)
    if memory is None or len(memory) < size:
        memory = of_thread.memories[name] = np.empty(size, np.uint8)
        of_thread.plans.clear()  # which would hold the smaller one
    return memory[:size].view(dtype).reshape(shape)


def is_buffer(array: np.ndarray) -> bool:
    """Tells whether an array lies in memory that this thread uses again."""
    base = array.base
    return any(base is memory for memory in of_thread.memories.values())


def constant(array: np.ndarray) -> np.ndarray:
    """Makes sure that an array which is kept stays as it is."""
    array.flags.writeable = False
    return array


@functools.lru_cache(256)
def zeros(n: int) -> np.ndarray:
    """Returns n zeros of float32, the same array for all."""
    return constant(np.zeros(n, np.float32))
