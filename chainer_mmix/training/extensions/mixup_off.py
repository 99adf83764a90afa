from __future__ import annotations

import chainer
from chainer.training import extension


class MixupOff(extension.Extension):
    """Switches mixing off after some epochs.

    It sets ``mixup_hidden`` of the main optimizer's target, a
    :class:`~chainer_mmix.ManifoldMixupClassifier`, to ``False``. That is a function of
    the epoch alone, and is right after a resume too.

    The last epochs without mixing let a network, and the statistics of its batch
    normalisation, settle on samples as they are. To fade mixing out, shift ``prob`` or
    ``alpha`` of the policy with :class:`~chainer.training.extensions.LinearShift`.

    Source: ``mixup_off_epoch`` of timm.

    Args:
        epoch (int): The number of epochs with mixing.
    """

    trigger = 1, "epoch"

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        self(trainer)

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        if trainer.updater.epoch >= self._epoch:
            trainer.updater.get_optimizer("main").target.mixup_hidden = False
