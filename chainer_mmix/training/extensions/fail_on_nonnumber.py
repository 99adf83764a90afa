from __future__ import annotations

import math

import chainer
from chainer.training import extension, extensions


class DivergedError(RuntimeError):
    """The loss or a parameter is NaN or infinite."""


class FailOnNonNumber(extensions.FailOnNonNumber):
    """Stops the training when the loss or a parameter is NaN or infinite.

    It runs before all other extensions, so neither log nor snapshot sees the bad
    epoch, and the last snapshot is a good one.

    :class:`chainer.training.extensions.FailOnNonNumber` reads every parameter at each
    iteration, which on a GPU waits for the device that many times. This one reads the
    loss, and the parameters at the end of an epoch, before a snapshot can be taken.

    Args:
        interval (int): Iterations between two looks at the loss. A look waits for the
            device, so a GPU runs faster with more than the default, 1.
    """

    priority = extension.PRIORITY_WRITER + 100

    def __init__(self, interval: int = 1) -> None:
        self._interval = interval

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        updater = trainer.updater
        epoch = updater.epoch + (not updater.is_new_epoch)
        when = f"in epoch {epoch} (iteration {updater.iteration})"
        loss = trainer.observation.get("main/loss")
        look = updater.iteration % self._interval == 0 or updater.is_new_epoch
        if look and loss is not None:
            loss = float(chainer.as_array(loss))
            if not math.isfinite(loss):
                raise DivergedError(f"the loss became {loss} {when}")
        if updater.is_new_epoch:
            try:
                super().__call__(trainer)
            except RuntimeError as e:
                raise DivergedError(f"a parameter became NaN or infinite {when}") from e
