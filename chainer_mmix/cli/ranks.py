"""The training command in several processes."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from chainer_mmix import training
from chainer_mmix.cli.argument_types import gpu_numbers
from chainer_mmix.cli.options import OPTIONS
from chainer_mmix.training import multinode
from chainer_mmix.training.multinode import Ranks


@contextlib.contextmanager
def quiet_ranks(errors: bool = False) -> Iterator[None]:
    """Lets the first rank alone print in the ``with`` block.

    Args:
        errors (bool): Whether to keep back standard error too. The default is
            ``False``.
    """
    started = multinode.started_ranks()
    if started is None or started[0] == 0:
        yield
        return
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        if errors:
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


@contextlib.contextmanager
def ending_all(error: Exception) -> Iterator[None]:
    """Ends all ranks by the exit of the ``with`` block, without a word to each other.

    What all ranks have to say is said by the first one.

    Args:
        error (Exception): Why. What is wrong with a value before there is MPI is the
            same on all ranks.
    """
    started = multinode.started_ranks()
    if started is None:
        yield
        return
    is_of_all = isinstance(error, ValueError) and "mpi4py.MPI" not in sys.modules
    if started[0] > 0 and not is_of_all:
        time.sleep(2)  # after which the first one has ended all, if it fails too
    try:
        with quiet_ranks(errors=is_of_all):
            yield
    except SystemExit as e:
        sys.stderr.flush()
        os._exit(e.code if isinstance(e.code, int) else 1)


def find_ranks(args: argparse.Namespace, words: Sequence[str]) -> Ranks:
    """Joins the other ranks, or starts them, as the arguments say.

    Raises:
        ImportError: If MPI is wanted and missing.
        ValueError: If an argument does not go with the number of ranks.
    """
    if args.gpus is not None:
        gpus = gpu_numbers(args.gpus)
        if args.device is not None or args.gpu >= 0:
            raise ValueError("--gpus takes the place of --gpu and --device")
        if len(gpus) > 1 and multinode.started_ranks() is None:
            if max(gpus) >= 0:
                training.get_device(f"@cupy:{max(gpus)}")  # says what is missing
            multinode.start(len(gpus), words)
        is_gpu = max(gpus) >= 0
    else:
        is_gpu = args.gpu >= 0 or "cu" in (args.device or "")
    ranks = multinode.join(args.communicator, is_gpu)
    if ranks.communicator is not None:
        from chainermn import global_except_hook

        global_except_hook.add_hook()
    return ranks


def check_ranks(args: argparse.Namespace, words: Sequence[str], ranks: Ranks) -> None:
    """Checks, on all ranks alike, that arguments are for several.

    Raises:
        ValueError: If one is not.
    """
    if ranks.communicator is None:
        return
    if any(other != words for other in ranks.communicator.mpi_comm.allgather(words)):
        raise ValueError("the ranks were started with different arguments")
    if args.graph and any(gpu >= 0 for gpu in gpu_numbers(args.gpus or "-1")):
        raise ValueError("--graph is for ranks on CPUs, not on GPUs: leave it out")
    if args.graph and args.sync_bn:
        raise ValueError(
            "--graph cannot replay what ranks exchange for --sync-bn: leave one out"
        )
    if args.gpus is None:
        if args.gpu >= 0 or "cu" in (args.device or ""):
            raise ValueError(
                "--gpu is for one process: give each rank of a machine one by --gpus, "
                "such as --gpus 0,1"
            )
        return
    n, size = len(gpu_numbers(args.gpus)), ranks.communicator.intra_size
    if n < size:
        raise ValueError(
            f"--gpus {args.gpus} is not enough for the {size} ranks of a machine: name "
            "one for each"
        )


def find_device(args: argparse.Namespace, ranks: Ranks) -> Any:
    """Returns the device of this rank."""
    spec = args.gpu if args.device is None else args.device
    if ranks.size > 1 and args.gpus is None and "cu" in str(spec):
        raise ValueError(
            f"the ranks cannot share {spec}: give each one by --gpus, as --gpus 0,1"
        )
    if args.gpus is not None:
        place = 0 if ranks.communicator is None else ranks.communicator.intra_rank
        spec = gpu_numbers(args.gpus)[place]
    return training.get_device(spec)


def scale_rate(args: argparse.Namespace, powers: dict[str, float], size: int) -> float:
    """Returns by what to multiply the learning rate, and fills in ``--warmup``."""
    if args.lr_scaling == "none":
        return 1.0
    if args.warmup is None:
        args.warmup = min(5, args.epoch // 2)
    return size ** powers[args.lr_scaling]


def warn_of_one_rank(args: argparse.Namespace) -> None:
    """Warns of options that are for several ranks where there is one."""
    patience = args.rank_timeout
    for flag, is_given, does in (
        ("--common-draw", args.common_draw, "nothing"),
        ("--sync-bn", args.sync_bn, "nothing"),
        (f"--communicator {args.communicator}", args.communicator != "auto", "nothing"),
        (
            f"--rank-timeout {patience:g}",
            patience != OPTIONS["rank_timeout"].default,
            "nothing",
        ),
        (
            f"--lr-scaling {args.lr_scaling}",
            args.lr_scaling != "none",
            f"no more than its warm-up (--warmup {args.warmup})",
        ),
    ):
        if is_given:
            warnings.warn(
                f"{flag} does {does} in one process: start ranks with mpiexec or "
                "--gpus, or leave it out",
                stacklevel=2,
            )
