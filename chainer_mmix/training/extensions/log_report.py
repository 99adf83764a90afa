from __future__ import annotations

import chainer
from chainer.training import extensions

from chainer_mmix.training.parts import batch_size


class LogReport(extensions.LogReport):
    """Chainer's LogReport, which weighs each iteration by its number of examples.

    It is for training on minibatches of several sizes: by an iterator with
    ``repeat=False``, or one that puts examples of one length together. Where all
    minibatches are of one size, as by default, it logs what
    :class:`chainer.training.extensions.LogReport` does. If an iteration takes several
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
