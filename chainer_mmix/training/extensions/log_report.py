from __future__ import annotations

import chainer
from chainer.training import extensions

from chainer_mmix.training.trainer_parts import batch_size


class LogReport(extensions.LogReport):
    """Chainer's LogReport, but with each iteration weighted by its number of examples.

    It is for training on minibatches of several sizes: with an iterator with
    ``repeat=False``, or one that groups examples of the same length. If all minibatches
    have the same size, as by default, its log is that of
    :class:`chainer.training.extensions.LogReport`. If an iteration takes several
    minibatches, the last one counts.

    Args:
        args, options: As for :class:`chainer.training.extensions.LogReport`.
    """

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        observation, n = trainer.observation, batch_size(trainer.updater)
        trainer.observation = {
            key: value if isinstance(value, tuple) else (value, n)
            for key, value in observation.items()
        }
        try:
            super().__call__(trainer)
        finally:
            trainer.observation = observation
