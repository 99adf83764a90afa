"""Compiled loops over float32, shared among threads; Numba is needed to import them."""

from chainer_revive.cpu.loops.batch_normalization import (
    bn_apply,
    bn_backward,
    bn_forward,
    channel_sums,
)
from chainer_revive.cpu.loops.correlation import (
    correlate,
    correlate_outputs,
    scatter,
)
from chainer_revive.cpu.loops.cross_entropy import accuracy, cross_entropy
from chainer_revive.cpu.loops.elementwise import (
    adam,
    mix,
    momentum_sgd,
    relu,
    relu_backward,
    total,
)
from chainer_revive.cpu.loops.pooling import (
    average_backward,
    average_forward,
    max_backward,
    max_forward,
)

__all__ = [
    "accuracy",
    "adam",
    "average_backward",
    "average_forward",
    "bn_apply",
    "bn_backward",
    "bn_forward",
    "channel_sums",
    "correlate",
    "correlate_outputs",
    "cross_entropy",
    "max_backward",
    "max_forward",
    "mix",
    "momentum_sgd",
    "relu",
    "relu_backward",
    "scatter",
    "total",
]
