from __future__ import annotations

import random

import chainer
import numpy as np
from chainer.training import extension


class RandomState(extension.Extension):
    """Puts the state of :mod:`numpy.random` and :mod:`random` into the snapshot.

    Chainer's iterators save their order, but not the generators that draw the next one.
    With this extension and a :class:`~chainer.iterators.SerialIterator`, a resumed run
    on a CPU equals an uninterrupted one bit-for-bit. Iterators that prefetch have drawn
    ahead when a snapshot is taken, so their later orders may differ. The extension does
    nothing else; a mixing policy saves its own generator.
    """

    trigger = 1, "epoch"

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        pass

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or restores both generators."""
        name, keys, position, has_gauss, gauss = np.random.get_state()
        version, state, normal = random.getstate()
        keys = serializer("numpy_keys", keys)
        position = serializer("numpy_position", position)
        has_gauss = serializer("numpy_has_gauss", has_gauss)
        gauss = serializer("numpy_gauss", gauss)
        state = serializer("python_state", np.array(state, np.uint64))
        # Not a number stands for "none drawn ahead".
        normal = serializer("python_normal", np.nan if normal is None else normal)
        if isinstance(serializer, chainer.Deserializer):
            np.random.set_state((name, keys, position, has_gauss, gauss))
            normal = None if np.isnan(normal) else normal
            random.setstate((version, tuple(map(int, state)), normal))
