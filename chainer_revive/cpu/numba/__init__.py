"""Chainer's functions in compiled loops over float32, shared among threads.

Numba is needed to import them.
"""

from chainer_revive.cpu.numba import (
    batch_normalization,
    convolution,
    cross_entropy,
    elementwise,
    optimizers,
    plans,
    pooling,
    threads,
)

__all__ = [
    "batch_normalization",
    "convolution",
    "cross_entropy",
    "elementwise",
    "optimizers",
    "plans",
    "pooling",
    "threads",
]
