from __future__ import annotations

from collections.abc import Sequence

import chainer
from chainer import optimizers
from chainer.training import extension


class LearningRate(extension.Extension):
    """Logs the learning rate as ``lr``, and drops it after some epochs.

    The rate is a function of the epoch alone, and is right after a resume too.
    Chainer's :class:`~chainer.training.extensions.ExponentialShift` forgets it when it
    is resumed after the last drop of a
    :class:`~chainer.training.triggers.ManualScheduleTrigger`, and before that prefers
    the old rate to a new one.

    It sets ``lr`` of an optimizer, ``alpha`` of Adam, and ``eta`` of AdamW, which
    scales its weight decay with it.

    Args:
        drops (sequence of int): Epochs after which the rate is multiplied by
            ``factor``. The default is none.
        factor (float): The default is 0.1.
    """

    trigger = 1, "epoch"
    priority = extension.PRIORITY_WRITER

    def __init__(self, drops: Sequence[int] = (), factor: float = 0.1) -> None:
        self._drops = tuple(drops)
        self._factor = factor

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        optimizer = trainer.updater.get_optimizer("main")
        if isinstance(optimizer, optimizers.AdamW):
            self._attribute = "eta"
        elif isinstance(optimizer, optimizers.Adam):
            self._attribute = "alpha"
        else:
            self._attribute = "lr"
        self._initial = getattr(optimizer, self._attribute)
        self._update(trainer)

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        optimizer = trainer.updater.get_optimizer("main")
        rate = getattr(optimizer, self._attribute)
        if self._attribute == "eta":
            rate *= optimizer.alpha
        trainer.observation["lr"] = rate
        self._update(trainer)

    def _update(self, trainer: chainer.training.Trainer) -> None:
        done = sum(drop <= trainer.updater.epoch for drop in self._drops)
        rate = self._initial * self._factor**done
        setattr(trainer.updater.get_optimizer("main"), self._attribute, rate)
