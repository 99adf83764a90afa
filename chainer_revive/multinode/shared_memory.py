"""Memory that the ranks of a machine share."""

from __future__ import annotations

import mmap
import os
import secrets

import numpy as np
from mpi4py import MPI

_TOKEN = 16  # bytes by which a rank knows that it has found the memory of rank 0


def share(mpi_comm: MPI.Comm, size: int) -> np.ndarray | None:
    """Returns ``size`` bytes that all ranks can read and write, on all ranks or none.

    It has no name in a file system, so that it needs no room in ``/dev/shm``, which is
    small in containers, and is gone with the last rank, however that ends.

    Args:
        mpi_comm: Ranks of one machine.
        size: At least 16.
    """
    fd, found, memory = -1, None, None
    try:
        if mpi_comm.rank == 0:
            fd = os.memfd_create("chainer_revive")
            os.posix_fallocate(fd, 0, size)  # now, not as a fault when it is written
            memory = _map(fd, size)
            memory[:_TOKEN] = np.frombuffer(secrets.token_bytes(_TOKEN), np.uint8)
            found = os.getpid(), fd, memory[:_TOKEN].tobytes()
    except (AttributeError, OSError, ValueError):  # only Linux has such memory
        found = memory = None
    found = mpi_comm.bcast(found)
    try:
        if mpi_comm.rank and found is not None:
            pid, number, token = found
            fd = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR)
            memory = _map(fd, size)
            if memory[:_TOKEN].tobytes() != token:
                memory = None
    except (OSError, ValueError):  # such as ranks in containers of their own
        memory = None
    is_everywhere = mpi_comm.allreduce(memory is not None, MPI.LAND)
    if fd >= 0:
        os.close(fd)
    return memory if is_everywhere else None


def _map(fd: int, size: int) -> np.ndarray:
    return np.frombuffer(mmap.mmap(fd, size), np.uint8)
