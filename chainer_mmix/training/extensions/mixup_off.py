from __future__ import annotations

import chainer
from chainer.training import extension
from chainer.training.updaters import MultiprocessParallelUpdater


class MixupOff(extension.Extension):
    """Switches mixing off after some epochs.

    It sets ``mixup_hidden`` of the main optimizer's target, a
    :class:`~chainer_mmix.ManifoldMixupClassifier`, to ``False``. That is a function of
    the epoch alone, and is right after a resume too.

    The last epochs without mixing let a network, and the statistics of its batch
    normalisation, settle on samples as they are. To fade mixing out, shift ``prob`` or
    ``alpha`` of the policy with :class:`~chainer.training.extensions.LinearShift`.

    The copies of a :class:`~chainer.training.updaters.ParallelUpdater` are switched off
    too. Those of a MultiprocessParallelUpdater are in other processes, out of reach.

    Source: ``mixup_off_epoch`` of timm.

    Args:
        epoch (int): The number of epochs with mixing.

    Raises:
        TypeError: If the updater trains in other processes, when the run begins.
    """

    trigger = 1, "epoch"

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        if isinstance(trainer.updater, MultiprocessParallelUpdater):
            raise TypeError(
                "MixupOff cannot reach the models that MultiprocessParallelUpdater "
                "trains in other processes: use ParallelUpdater, or train in two runs"
            )
        self(trainer)

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        if trainer.updater.epoch >= self._epoch:
            main = trainer.updater.get_optimizer("main").target
            replicas = getattr(trainer.updater, "_models", {}).values()
            for model in (main, *replicas):
                model.mixup_hidden = False
