from __future__ import annotations

import chainer
from chainer.training.updaters import MultiprocessParallelUpdater

from chainer_mmix.checks import check_whole
from chainer_mmix.links import ManifoldMixupClassifier
from chainer_mmix.training.extensions.epoch_schedule import EpochSchedule
from chainer_mmix.training.trainer_parts import classifiers_of


class MixupOff(EpochSchedule):
    """Switches mixing off after a number of epochs.

    It sets ``mixup_hidden`` of each :class:`~chainer_mmix.ManifoldMixupClassifier` that
    the updater trains to ``False``. This depends only on the epoch, so it is right
    after a resume too.

    The last epochs without mixing let a network, and the statistics of its batch
    normalisation, adapt to unmixed samples. To fade mixing out, shift ``prob`` or
    ``alpha`` with :class:`~chainer_mmix.training.extensions.MixupShift`.

    The copies of a :class:`~chainer.training.updaters.ParallelUpdater` are switched off
    too. Those of a MultiprocessParallelUpdater are out of reach, in other processes.
    Under a multi-node optimizer of :mod:`chainermn`, it belongs on every rank.

    Source: ``mixup_off_epoch`` of timm.

    Args:
        epoch (int): The number of epochs with mixing.
        classifier (~chainer_mmix.ManifoldMixupClassifier): The classifier, if others
            continue to mix or the updater hides it. By default, all classifiers that
            are found in the optimizers' targets, in ``loss_func`` and in attributes of
            the updater are switched off.

    Raises:
        ValueError: If ``epoch`` is not a whole number >= 0.
        TypeError: If there is no classifier, or the updater trains in other processes,
            when the run begins.
    """

    def __init__(
        self, epoch: int, classifier: ManifoldMixupClassifier | None = None
    ) -> None:
        check_whole("epoch", epoch, 0)
        self._epoch = epoch
        self._classifiers = [] if classifier is None else [classifier]

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        if isinstance(trainer.updater, MultiprocessParallelUpdater):
            raise TypeError(
                "MixupOff cannot reach the models that MultiprocessParallelUpdater "
                "trains in other processes: use ParallelUpdater, or train in two runs"
            )
        self._classifiers = self._classifiers or classifiers_of(trainer)
        if not self._classifiers:
            raise TypeError(
                "MixupOff finds no ManifoldMixupClassifier in the updater: pass it, as "
                "MixupOff(..., classifier=model)"
            )
        super().initialize(trainer)

    def set(self, trainer: chainer.training.Trainer) -> None:
        """Switches mixing off if it is time."""
        if trainer.updater.epoch >= self._epoch:
            for classifier in self._classifiers:
                classifier.mixup_hidden = False
