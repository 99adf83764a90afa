from __future__ import annotations

import contextlib
import numbers
import random
import threading
from collections.abc import Iterator

import chainer
import numpy as np
from chainer.backends import cuda


def set_seed(seed: int, device: chainer.backend.Device) -> None:
    """Seeds all that a training run draws from outside a policy of its own.

    These are :mod:`numpy.random` (Chainer's initializers and iterators),
    :mod:`random` (ChainerCV's transforms) and, on a GPU, CuPy's generator.

    Args:
        seed (int): In [0, 2**32 - 1].
        device (chainer.backend.Device): Where the run computes.

    Raises:
        ValueError: If the seed is none.
    """
    if not isinstance(seed, numbers.Integral) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be a whole number in [0, 2**32 - 1], not {seed!r}")
    random.seed(seed)
    np.random.seed(seed)
    if cuda.available and device.xp is cuda.cupy:
        with chainer.using_device(device):
            cuda.cupy.random.seed(seed)


@contextlib.contextmanager
def kept_random_state() -> Iterator[None]:
    """Undoes what the ``with`` block draws from :mod:`numpy.random` and :mod:`random`.

    While the thread of a :class:`~chainer.iterators.MultiprocessIterator` prefetches,
    it undoes nothing: what that thread drew meanwhile it would draw again.
    """
    if any(thread.name == "prefetch_loop" for thread in threading.enumerate()):
        yield
        return
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
