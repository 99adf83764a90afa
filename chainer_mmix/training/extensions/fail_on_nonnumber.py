from __future__ import annotations

import chainer
from chainer import backend
from chainer.training import extension, extensions


class DivergedError(RuntimeError):
    """A loss or a parameter is NaN or infinite."""


class FailOnNonNumber(extensions.FailOnNonNumber):
    """Stops the training when a loss or a parameter is NaN or infinite.

    A loss is any value reported under a name whose last part contains ``loss``, such as
    ``main/loss`` or ``gen/loss_adv``.

    Under a multi-node optimizer of :mod:`chainermn`, it belongs on every rank, together
    with a :class:`~chainer_mmix.training.multinode.ObservationMean`, which passes the
    bad loss of one rank on to all.

    It runs before all other extensions, so the bad epoch does not reach the log, and
    snapshots at the end of an epoch are good.

    :class:`chainer.training.extensions.FailOnNonNumber` reads every parameter in each
    iteration, and on a GPU waits for the device each time. This extension reads only
    the losses, and at the end of an epoch the parameters of all optimizers. Parameters
    that are not initialised yet do not count.

    Args:
        interval (int): Iterations between two checks of the losses. A check waits for
            the device, so a GPU runs faster with more than the default of 1.
    """

    priority = extension.PRIORITY_WRITER + 100

    def __init__(self, interval: int = 1) -> None:
        self._interval = interval

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        updater = trainer.updater
        if updater.iteration % self._interval == 0 or updater.is_new_epoch:
            for key, value in trainer.observation.items():
                if "loss" in key.rpartition("/")[2] and not _is_finite(value):
                    which = "the loss" if key == "main/loss" else key
                    value = chainer.as_array(value)
                    raise DivergedError(f"{which} became {value} {_when(updater)}")
        if updater.is_new_epoch:
            self.check_parameters(trainer)

    def check_parameters(self, trainer: chainer.training.Trainer) -> None:
        """Looks at all parameters.

        Raises:
            DivergedError: If one is NaN or infinite.
        """
        updater = trainer.updater
        for optimizer in updater.get_all_optimizers().values():
            for param in optimizer.target.params(include_uninit=False):
                if not _is_finite(param):
                    raise DivergedError(
                        f"a parameter became NaN or infinite {_when(updater)}"
                    )


def _when(updater) -> str:
    epoch = updater.epoch + (not updater.is_new_epoch)
    return f"in epoch {epoch} (iteration {updater.iteration})"


def _is_finite(value) -> bool:
    array = chainer.as_array(value)
    return bool(backend.get_array_module(array).isfinite(array).all())
