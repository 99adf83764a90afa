from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

from chainer_revive.cpu.steps import CannotReplayError


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """A context in which this thread exchanges nothing with other ranks.

    One rank may record a step, for which it computes it several times, while others
    compute theirs once: they would take its messages for others.

    Raises:
        CannotReplayError: If a communicator is used in the context.
    """
    name = "chainermn.communicators.mpi_communicator_base"
    if name not in sys.modules:  # there is none to use
        yield
        return
    thread = threading.get_ident()

    def mpi_comm(communicator: Any) -> Any:
        if threading.get_ident() == thread:
            raise CannotReplayError("it exchanges numbers with other ranks")
        return vars(communicator)["mpi_comm"]  # for a watchdog, at any time

    cls: Any = sys.modules[name].MpiCommunicatorBase
    cls.mpi_comm = property(mpi_comm)  # comes before what each instance has
    try:
        yield
    finally:
        del cls.mpi_comm
