"""The mathematics of mixing: arrays and Variables in, arrays and Variables out."""

from chainer_mmix.mixing.functions import mix, mixup_data
from chainer_mmix.mixing.losses import (
    mixup_accuracy,
    mixup_criterion,
    mixup_softmax_cross_entropy,
)
from chainer_mmix.mixing.policy import MixupDraw, MixupPolicy

__all__ = [
    "MixupDraw",
    "MixupPolicy",
    "mix",
    "mixup_accuracy",
    "mixup_criterion",
    "mixup_data",
    "mixup_softmax_cross_entropy",
]
