from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chainer
from chainer.training import extension


class RankSnapshot(extension.Extension):
    """Saves a snapshot on the first rank, with the states of the other ranks.

    It belongs on every rank. Extensions whose state differs among ranks have two
    methods: ``rank_part()`` returns the part of this rank, and ``take_parts(parts)`` is
    called on the first rank with the parts of all ranks, before it is saved.

    Args:
        communicator (~chainermn.CommunicatorBase): One of ChainerMN's communicators.
        snapshot: The extension that saves, made by :func:`chainer.training.extensions.\
snapshot`. The other ranks do not call it.
    """

    priority = extension.PRIORITY_READER - 200  # Chainer's snapshot

    def __init__(self, communicator: Any, snapshot: extension.Extension) -> None:
        self._communicator = communicator
        self._snapshot = snapshot
        self.priority = snapshot.priority
        self.on_error = self._of_first("on_error")
        self.initialize = self._of_first("initialize")
        self.finalize = self._of_first("finalize")

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        extensions = {
            name: entry.extension
            for name, entry in trainer._extensions.items()
            if hasattr(entry.extension, "rank_part")
        }
        own = {name: one.rank_part() for name, one in extensions.items()}
        parts = self._communicator.gather_obj(own)
        if parts is not None:
            for name, one in extensions.items():
                one.take_parts([part[name] for part in parts if name in part])
            self._snapshot(trainer)

    def _of_first(self, name: str) -> Callable:
        method = getattr(self._snapshot, name, None)
        if self._communicator.rank == 0 and method is not None:
            return method
        return lambda *_: None
