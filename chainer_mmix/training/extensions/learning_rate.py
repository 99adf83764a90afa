from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import chainer
from chainer import optimizers
from chainer.training import extension

from chainer_mmix.training.extensions.epoch_schedule import EpochSchedule
from chainer_mmix.training.parts import optimizer_of


class LearningRate(EpochSchedule):
    """Logs the learning rate as ``lr``, and drops it after some epochs.

    The rate is a function of the epoch alone, and is right after a resume too.
    Chainer's :class:`~chainer.training.extensions.ExponentialShift` prefers the old
    rate to a new one when it is resumed.

    It sets ``lr`` of an optimizer, ``alpha`` of Adam, and ``eta`` of AdamW, which
    scales its weight decay with it.

    Args:
        drops (sequence of int): Epochs after which the rate is multiplied by
            ``factor``. The default is none.
        factor (float): The default is 0.1.
        optimizer (chainer.GradientMethod): The optimizer. By default, it is the one
            called ``"main"`` or the only one. The rate of another one in the updater is
            logged as ``lr/<name>``.

    Raises:
        ValueError: If there are several optimizers, none of which is called ``"main"``,
            when the run begins.
    """

    priority = extension.PRIORITY_WRITER

    def __init__(
        self,
        drops: Sequence[int] = (),
        factor: float = 0.1,
        optimizer: chainer.GradientMethod | None = None,
    ) -> None:
        self._drops = tuple(drops)
        self._factor = factor
        self._optimizer: Any = optimizer

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        optimizer = self._optimizer or optimizer_of(trainer, type(self).__name__)
        self._optimizer = optimizer
        if isinstance(optimizer, optimizers.AdamW):
            self._attribute = "eta"
        elif isinstance(optimizer, optimizers.Adam):
            self._attribute = "alpha"
        else:
            self._attribute = "lr"
        self._initial = getattr(optimizer, self._attribute)
        others = trainer.updater.get_all_optimizers()
        name = next((k for k, other in others.items() if other is optimizer), "main")
        self._key = "lr" if name == "main" or len(others) == 1 else f"lr/{name}"
        super().initialize(trainer)

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        rate = getattr(self._optimizer, self._attribute)
        if self._attribute == "eta":
            rate *= self._optimizer.alpha
        trainer.observation[self._key] = rate
        super().__call__(trainer)

    def set(self, trainer: chainer.training.Trainer) -> None:
        """Sets the rate of the present epoch."""
        done = sum(drop <= trainer.updater.epoch for drop in self._drops)
        setattr(self._optimizer, self._attribute, self._initial * self._factor**done)
