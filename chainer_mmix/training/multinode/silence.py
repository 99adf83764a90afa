from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import chainer

from chainer_revive.cpu.steps import CannotReplayError


@contextlib.contextmanager
def silence(communicator: Any, links: Iterable[chainer.Link]) -> Iterator[None]:
    """A context in which no messages are sent to other ranks.

    One rank may record a step, for which it computes it several times, while others
    compute theirs once: they would take its messages for others.

    Args:
        communicator (~chainermn.CommunicatorBase): One that may not be used, besides
            those that are attributes of links.
        links: Such as a :class:`chainermn.links.MultiNodeBatchNormalization`.

    Raises:
        CannotReplayError: If one is used in the context.
    """
    from chainermn import CommunicatorBase

    values = (value for link in links for value in vars(link).values())
    held = {v for v in values if isinstance(v, CommunicatorBase)}
    spoken = [(one, one.mpi_comm) for one in {communicator, *held}]
    try:
        for one, mpi_comm in spoken:
            one.mpi_comm = _Silent(mpi_comm)
        yield
    finally:
        for one, mpi_comm in spoken:
            one.mpi_comm = mpi_comm


class _Silent:
    def __init__(self, mpi_comm: Any) -> None:
        self.Abort = mpi_comm.Abort  # which a watchdog may need at any time

    def __getattr__(self, name: str) -> Any:
        raise CannotReplayError("it exchanges numbers with other ranks")
