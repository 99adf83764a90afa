"""Hands errors of a MultiprocessIterator's workers to the main thread.

In Chainer they end the prefetching thread, and the main thread waits for ever.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable


def raised(batch):
    """Returns a batch, or raises the error that stands in place of one."""
    if isinstance(batch, Exception):
        raise batch
    return batch


def read(read_example: Callable, *args):
    """Reads an example in a worker, whose error must survive the way to the pool.

    One that cannot be unpickled would end the pool's thread, for ever in silence.
    """
    try:
        return read_example(*args)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        raise
