"""Chainer's functions in NumPy, in pieces that stay in the cache."""

from chainer_revive.cpu.numpy import (
    batch_normalization,
    convolution,
    optimizers,
    pooling,
)

__all__ = ["batch_normalization", "convolution", "optimizers", "pooling"]
