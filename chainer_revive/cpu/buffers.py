"""Memory that is used again and again."""

from __future__ import annotations

import functools
import threading

import numpy as np

LINE = 64  # bytes of a cache line: vectors that lie across two are slower


class _OfThread(threading.local):
    """Each thread has its own.

    Attributes:
        memories (dict): By name, what :func:`buffer` gives out, and where the first
            cache line in it begins.
        plans (dict): What relies on these memories, see
            :mod:`chainer_revive.cpu.numba.plans`.
        name (object): Tells this thread from all others, earlier ones included.
    """

    def __init__(self) -> None:
        self.memories: dict = {}
        self.plans: dict = {}
        self.name = object()


of_thread = _OfThread()


def buffer(name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
    """Returns an array with arbitrary contents that this thread uses again and again.

    It begins with a cache line, and is valid until this thread asks for the same
    ``name`` again.
    """
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for n in shape:
        size *= n
    memory, first = of_thread.memories.get(name, _NONE)
    if len(memory) < first + size:
        memory = np.empty(size + LINE, np.uint8)
        first = -memory.ctypes.data % LINE
        of_thread.memories[name] = memory, first
        of_thread.plans.clear()  # which would hold the smaller one
    return memory[first : first + size].view(dtype).reshape(shape)


_NONE = np.empty(0, np.uint8), 0


def is_buffer(array: np.ndarray) -> bool:
    """Tells whether an array lies in memory that this thread uses again."""
    base = array.base
    return any(base is memory for memory, _ in of_thread.memories.values())


def constant(array: np.ndarray) -> np.ndarray:
    """Makes sure that an array which is kept stays as it is."""
    array.flags.writeable = False
    return array


@functools.lru_cache(256)
def zeros(n: int) -> np.ndarray:
    """Returns n zeros of float32, the same array for all."""
    return constant(np.zeros(n, np.float32))
