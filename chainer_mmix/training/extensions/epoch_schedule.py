from __future__ import annotations

import chainer
from chainer.training import extension


class EpochSchedule(extension.Extension):
    """Base of extensions that set something by the epoch alone.

    It is right from the first iteration on after a resume too: by
    :func:`chainer.serializers.load_npz` before the run, as well as by
    ``snapshot(autoload=True)``, which loads when other extensions are initialised.
    """

    trigger = 1, "epoch"
    _trainer: chainer.training.Trainer | None = None

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        self._trainer = trainer
        self.set(trainer)

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        self.set(trainer)

    def set(self, trainer: chainer.training.Trainer) -> None:
        """Sets what belongs to the present epoch."""
        raise NotImplementedError

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves nothing; sets what belongs to the epoch that was loaded."""
        if self._trainer and isinstance(serializer, chainer.Deserializer):
            self.set(self._trainer)
