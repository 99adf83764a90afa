from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

from chainer_revive.cpu.steps import CannotReplayError

_NAME = "chainermn.communicators.mpi_communicator_base"
_silent: set[int] = set()  # threads


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """A context in which this thread exchanges nothing with other ranks.

    One rank may record a step, for which it computes it several times, while others
    compute theirs once: they would take its messages for others.

    Raises:
        CannotReplayError: If a communicator is used in the context.
    """
    if _NAME not in sys.modules:  # there is none to use
        yield
        return
    cls: Any = sys.modules[_NAME].MpiCommunicatorBase
    # It comes before what each instance has, and stays: other threads may need it.
    cls.mpi_comm = property(_mpi_comm, _set_mpi_comm)
    thread = threading.get_ident()
    is_outermost = thread not in _silent
    _silent.add(thread)
    try:
        yield
    finally:
        if is_outermost:
            _silent.remove(thread)


def _mpi_comm(communicator: Any) -> Any:
    if threading.get_ident() in _silent:
        raise CannotReplayError("it exchanges numbers with other ranks")
    return vars(communicator)["mpi_comm"]


def _set_mpi_comm(communicator: Any, mpi_comm: Any) -> None:
    vars(communicator)["mpi_comm"] = mpi_comm
