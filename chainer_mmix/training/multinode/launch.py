"""How ranks are started and find each other."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chainer_mmix.training.multinode.ranks import Ranks
from chainer_revive.cpu import blas

# Rank and number of ranks, as MPICH (and Intel's), Open MPI and MVAPICH give them.
_VARIABLES = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)
COMMUNICATORS = ("auto", "naive", "flat", "pure_nccl")


def started_ranks() -> tuple[int, int] | None:
    """Returns the rank and the number of ranks if mpiexec has started this process."""
    for variables in _VARIABLES:
        values = [os.environ.get(name, "") for name in variables]
        if all(value.isdigit() for value in values):
            return int(values[0]), int(values[1])
    return None


def start(n: int, words: Sequence[str]) -> None:
    """Replaces this process by mpiexec, which starts it again as several ranks.

    Args:
        n (int): The number of ranks.
        words (sequence of str): The arguments of ``chainer-mmix train``.

    Raises:
        ImportError: If there is no mpiexec.
    """
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        raise ImportError(f"there is no mpiexec to start {n} ranks: {_INSTALL}")
    own = sys.orig_argv[1:]
    if not words or own[-len(words) :] != list(words):  # called by a program
        own = ["-m", "chainer_mmix.cli", "train", *words]
    sys.stdout.flush()
    os.execv(mpiexec, [mpiexec, "-n", str(n), sys.executable, *own])


_INSTALL = "install MPI and mpi4py with pip install 'chainer-mmix[mpi]'"


def join(name: str, is_gpu: bool = False) -> Ranks:
    """Joins the other ranks that mpiexec has started, if there are any.

    The ranks of a machine divide its processors among them, unless ``OMP_NUM_THREADS``
    sets the number for each. Worker processes that are started afterwards are forked
    from a server that does not use MPI, since a process that uses MPI must not be
    forked.

    Args:
        name (str): ``"naive"``, ``"flat"`` or ``"pure_nccl"``, as for
            :func:`chainermn.create_communicator`; ``"auto"`` for ``"pure_nccl"`` on
            GPUs and ``"naive"`` on CPUs, and, where mpiexec has not started this
            process, for no communicator.
        is_gpu (bool): Whether this rank computes on a GPU. The default is ``False``.

    Returns:
        Ranks: This rank and the others.

    Raises:
        ImportError: If MPI or mpi4py is missing.
        ValueError: If the communicator is not for this device, or mpiexec belongs to
            another MPI than mpi4py.
    """
    started = started_ranks()
    if name == "auto" and started is None:
        return Ranks()
    if name == "auto":
        name = "pure_nccl" if is_gpu else "naive"
    if name != "naive" and not is_gpu:
        raise ValueError(
            f"the communicator {name} is for GPUs, not for CPUs: use naive, or "
            "name the GPUs of the ranks with --gpus"
        )
    communicator = _create(name)
    if started is not None and started[1] != communicator.size:
        raise ValueError(
            f"mpiexec has started {started[1]} ranks, but MPI knows "
            f"{communicator.size}: use the mpiexec of the MPI that mpi4py was built "
            f"for, such as {Path(sys.executable).with_name('mpiexec')}"
        )
    is_forked = multiprocessing.get_start_method(allow_none=True) in (None, "fork")
    if is_forked and communicator.size > 1:
        multiprocessing.set_start_method("forkserver", force=True)
    library, n = blas.controller(), communicator.intra_size
    if library and n > 1 and "OMP_NUM_THREADS" not in os.environ:
        library.set_num_threads(max(1, (os.cpu_count() or 1) // n))
    return Ranks(communicator)


def _create(name: str) -> Any:
    try:
        import mpi4py.MPI  # noqa: F401
    except (ImportError, RuntimeError) as e:  # the latter where there is no MPI
        raise ImportError(f"ranks need MPI, which is not here ({e}): {_INSTALL}") from e
    import chainermn

    try:
        return chainermn.create_communicator(name)
    except (RuntimeError, AttributeError) as e:
        remedy = ""
        if "NCCL" in str(e):
            remedy = (
                ": install nvidia-nccl-cu12 or nvidia-nccl-cu13 with pip, as CuPy's "
                "CUDA is, or use naive, which exchanges by the host"
            )
        reason = str(e).rstrip(".")
        raise ValueError(
            f"the communicator {name} cannot be used here ({reason}){remedy}"
        ) from e
