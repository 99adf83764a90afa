"""The mathematics of mixing: arrays and Variables in, arrays and Variables out."""

from chainer_mmix.mixing.binary_cross_entropy import softmax_binary_cross_entropy
from chainer_mmix.mixing.criterion import mixup_accuracy, mixup_criterion
from chainer_mmix.mixing.functions import cutmix, mix, mixup_data
from chainer_mmix.mixing.losses import mixup_softmax_cross_entropy
from chainer_mmix.mixing.policy import (
    MixupDraw,
    MixupPolicy,
    current_draw,
    using_draw,
)

__all__ = [
    "MixupDraw",
    "MixupPolicy",
    "current_draw",
    "cutmix",
    "mix",
    "mixup_accuracy",
    "mixup_criterion",
    "mixup_data",
    "mixup_softmax_cross_entropy",
    "softmax_binary_cross_entropy",
    "using_draw",
]
