from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import chainer
from chainer import optimizers
from chainer.training import extension

from chainer_mmix.checks import check_number, check_whole
from chainer_mmix.training.extensions.epoch_schedule import EpochSchedule
from chainer_mmix.training.trainer_parts import optimizer_of


class LearningRate(EpochSchedule):
    """Logs the learning rate as ``lr``, warms it up, and lowers it.

    The rate depends only on the time, so it is right after a resume too. When it is
    resumed, Chainer's :class:`~chainer.training.extensions.ExponentialShift` prefers
    the old rate to a new one.

    It sets ``lr`` of an optimizer, ``alpha`` of Adam, and ``eta`` of AdamW, which also
    scales its weight decay. Under a multi-node optimizer, it belongs on every rank.

    Args:
        drops (sequence of int): Epochs after which the rate is multiplied by
            ``factor``. The default is none.
        factor (float): The default is 0.1.
        optimizer (chainer.GradientMethod): The optimizer. By default, it is the one
            called ``"main"``, or the only one. The rate of any other optimizer in the
            updater is logged as ``lr/<name>``.
        warmup (int): Epochs over which the rate grows linearly, an iteration at a time,
            to its value: from 0, or, if ``scale`` is not 1, from the optimizer's rate
            (arXiv 1706.02677). The default is 0.
        cosine (int): The epoch at which the rate reaches 0, after falling along half a
            cosine from the end of the warm-up, an iteration at a time
            (arXiv 1608.03983). The default is ``None``: it does not fall.
        scale (float): A factor for the optimizer's rate, for the larger minibatches of
            several ranks. The default is 1.

    Raises:
        TypeError: If ``drops`` is not a list.
        ValueError: If a number is negative, not finite, or 0 where that trains nothing;
            if ``factor`` is given without ``drops``, or ``drops`` with ``cosine``; or,
            when the run begins, there are several optimizers, none of which is
            called ``"main"``.
    """

    priority = extension.PRIORITY_WRITER

    def __init__(
        self,
        drops: Sequence[float] = (),
        factor: float = 0.1,
        optimizer: chainer.GradientMethod | None = None,
        warmup: int = 0,
        cosine: int | None = None,
        scale: float = 1.0,
    ) -> None:
        if isinstance(drops, str) or not isinstance(drops, Iterable):
            raise TypeError(f"drops must be a list of epochs: [{drops!r}]")
        self._drops = tuple(drops)
        for drop in self._drops:  # 100.0 too, as of 0.5 * 200
            is_whole = isinstance(drop, float) and drop.is_integer()
            check_whole("an epoch of drops", int(drop) if is_whole else drop, 1)
        check_number("factor", factor, exclusive=True)
        check_number("warmup", warmup)
        check_number("scale", scale, exclusive=True)
        if cosine is not None:
            check_number("cosine", cosine, exclusive=True)
        if factor != 0.1 and not self._drops:
            raise ValueError(
                f"factor {factor} changes nothing without drops: name the epochs, such "
                f"as LearningRate([50, 75], {factor}), or leave it out"
            )
        if self._drops and cosine is not None:
            raise ValueError(
                "drops (lr_drop) and cosine both lower the rate: leave out one"
            )
        if cosine is not None and warmup >= cosine:
            raise ValueError(
                f"a warm-up of {warmup} epochs leaves nothing of {cosine}: choose less"
            )
        self._warmup = warmup
        self._cosine = cosine
        if warmup or cosine:
            self.trigger = 1, "iteration"
        self._scale = scale
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
        """Sets the rate of the iteration that comes next."""
        updater = trainer.updater
        done = sum(drop <= updater.epoch for drop in self._drops)
        rate = self._initial * self._scale * self._factor**done
        if self._warmup:
            start = 0 if self._scale == 1 else 1 / self._scale
            # As far as the iteration will have come, so that the first is not at 0.
            at = updater.epoch_detail + (0 if start else _step(updater))
            rate *= start + (1 - start) * min(1.0, at / self._warmup)
        if self._cosine:
            span = self._cosine - self._warmup
            share = (updater.epoch_detail - self._warmup) / span
            rate *= (1 + math.cos(math.pi * min(1.0, max(0.0, share)))) / 2
        setattr(self._optimizer, self._attribute, rate)


def _step(updater: chainer.training.Updater) -> float:
    """Returns the share of an epoch that an iteration takes."""
    iterator = updater.get_iterator("main")
    return iterator.batch_size / len(iterator.dataset)
