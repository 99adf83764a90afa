from __future__ import annotations

import random

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
    """
    random.seed(seed)
    np.random.seed(seed)
    if cuda.available and device.xp is cuda.cupy:
        with chainer.using_device(device):
            cuda.cupy.random.seed(seed)
