"""Memory that each thread uses again and again."""

from __future__ import annotations

import threading

import numpy as np

_local = threading.local()


def buffer(name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
    """Returns an array with arbitrary contents that this thread uses again and again.

    It is valid until this thread asks for the same ``name`` again.
    """
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for n in shape:
        size *= n
    memory = getattr(_local, name, None)
    if memory is None or len(memory) < size:
        memory = np.empty(size, np.uint8)
        setattr(_local, name, memory)
    return memory[:size].view(dtype).reshape(shape)
