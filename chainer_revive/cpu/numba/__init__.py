"""Chainer's functions in compiled loops over float32, shared among threads.

Numba compiles them, and is imported only for that.
"""

from chainer_revive.cpu.numba import (
    batch_normalization,
    convolution,
    cross_entropy,
    elementwise,
    exchange,
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
    "exchange",
    "optimizers",
    "plans",
    "pooling",
    "threads",
]
