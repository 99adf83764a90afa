"""The mathematics of mixing: arrays and Variables in, arrays and Variables out."""

from chainer_mmix.mixing.accuracy import mixup_accuracy, top_k_accuracy
from chainer_mmix.mixing.batch import mixup_data
from chainer_mmix.mixing.binary_cross_entropy import softmax_binary_cross_entropy
from chainer_mmix.mixing.criterion import (
    ignored_label,
    mixup_criterion,
    mixup_score,
)
from chainer_mmix.mixing.draw import MixupDraw, current_draw, using_draw
from chainer_mmix.mixing.functions import mix
from chainer_mmix.mixing.losses import mixup_softmax_cross_entropy
from chainer_mmix.mixing.paste import cutmix
from chainer_mmix.mixing.policy import MixupPolicy
from chainer_mmix.mixing.remix import Remix

__all__ = [
    "MixupDraw",
    "MixupPolicy",
    "Remix",
    "current_draw",
    "cutmix",
    "ignored_label",
    "mix",
    "mixup_accuracy",
    "mixup_criterion",
    "mixup_data",
    "mixup_score",
    "mixup_softmax_cross_entropy",
    "softmax_binary_cross_entropy",
    "top_k_accuracy",
    "using_draw",
]
