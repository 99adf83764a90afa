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
    scales its weight decay with it. Under a multi-node optimizer it belongs on every
    rank.

    Args:
        drops (sequence of int): Epochs after which the rate is multiplied by
            ``factor``. The default is none.
        factor (float): The default is 0.1.
        optimizer (chainer.GradientMethod): The optimizer. By default, it is the one
            called ``"main"`` or the only one. The rate of another one in the updater is
            logged as ``lr/<name>``.
        scale (float): By what to multiply the optimizer's rate, for minibatches that
            several ranks make larger (arXiv 1706.02677). The default is 1.
        warmup (int): In how many epochs it grows from the optimizer's rate to that,
            linearly with the iterations. The default is 0.

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
        scale: float = 1.0,
        warmup: int = 0,
    ) -> None:
        self._drops = tuple(drops)
        self._scale = scale
        self._warmup = warmup
        if warmup:
            self.trigger = 1, "iteration"
        self._factor = factor
        self._optimizer: Any = optimizer

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        optimizer = self._optimizer or optimizer_of(trainer, type(self).__name__)
        optimizer = getattr(optimizer, "actual_optimizer", optimizer)
        self._optimizer = optimizer
        if isinstance(optimizer, optimizers.AdamW):
            self._attribute = "eta"
        elif isinstance(optimizer, optimizers.Adam):
            self._attribute = "alpha"
        else:
            self._attribute = "lr"
        self._initial = getattr(optimizer, self._attribute)
        others = trainer.updater.get_all_optimizers()
        name = next(
            (
                key
                for key, other in others.items()
                if optimizer in (other, getattr(other, "actual_optimizer", other))
            ),
            "main",
        )
        self._key = "lr" if name == "main" or len(others) == 1 else f"lr/{name}"
        super().initialize(trainer)

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        if trainer.updater.is_new_epoch:
            rate = getattr(self._optimizer, self._attribute)
            if self._attribute == "eta":
                rate *= self._optimizer.alpha
            trainer.observation[self._key] = rate
        super().__call__(trainer)

    def set(self, trainer: chainer.training.Trainer) -> None:
        """Sets the rate of the present epoch, or iteration of the warm-up."""
        done = sum(drop <= trainer.updater.epoch for drop in self._drops)
        scale = self._scale
        if self._warmup:
            share = min(1.0, trainer.updater.epoch_detail / self._warmup)
            scale = 1 + share * (scale - 1)
        rate = self._initial * scale * self._factor**done
        setattr(self._optimizer, self._attribute, rate)
