from __future__ import annotations

import numbers
import random

import chainer
import numpy as np
from chainer.backends import cuda


def set_seed(seed: int, device: chainer.backend.Device) -> None:
    """Seeds the generators of a training run, except those of policies.

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
