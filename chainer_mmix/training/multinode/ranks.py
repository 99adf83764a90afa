from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from chainer.datasets import SubDataset

T = TypeVar("T")
# What a wrong argument, a missing file or package raises.
_ERRORS = (ImportError, OSError, ValueError)


class RanksError(ValueError):
    """Something is wrong on one rank or on all; all of them raise it."""


class Ranks:
    """The processes that train one network, and the rank of this one.

    Without a communicator, this process is the only one, and nothing is communicated.

    Args:
        communicator (~chainermn.CommunicatorBase): One of ChainerMN's communicators, or
            ``None``, the default.

    Attributes:
        communicator: The communicator; ``None`` if there is only one rank.
        rank (int): The number of this process, from 0.
        size (int): The number of processes.
    """

    def __init__(self, communicator: Any = None) -> None:
        if communicator is not None and communicator.size == 1:
            communicator = None
        self.communicator = communicator
        self.rank: int = 0 if communicator is None else communicator.rank
        self.size: int = 1 if communicator is None else communicator.size

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes files."""
        return self.rank == 0

    def on_first(self, function: Callable[[], T]) -> T:
        """Calls a function on the first rank and returns its result on all.

        Args:
            function (callable): Its result can be pickled.

        Raises:
            RanksError: If it raised an error, or another rank has called :meth:`fail`.
        """
        if self.communicator is None:
            return function()
        error = result = None
        if self.is_first:
            try:
                result = function()
            except _ERRORS as e:
                error = str(e)
            except SystemExit:
                error = ""  # which argparse has printed
        return self._exchange(error, result)

    def in_turn(self, function: Callable[[], T]) -> T:
        """Calls a function on the first rank, and then on the others.

        Files that it downloads and caches are thus downloaded once.

        Raises:
            RanksError: As for :meth:`on_first`.
        """
        results: list[T] = []
        self.on_first(lambda: results.append(function()))
        return results[0] if results else function()

    def check(self) -> None:
        """Waits for the other ranks, and raises an error if one has failed.

        Raises:
            RanksError: If one has called :meth:`fail`.
        """
        if self.communicator is not None:
            self._exchange(None)

    def fail(self, error: Exception) -> None:
        """Raises an error on all ranks, at their next call of a method above.

        Args:
            error (Exception): The error of this rank.
        """
        if self.communicator is not None and not isinstance(error, RanksError):
            self._exchange(str(error))
        raise error

    def largest(self, value: float) -> float:
        """Returns the largest of the values of all ranks."""
        if self.communicator is None:
            return value
        from mpi4py import MPI

        found = np.empty(1)
        own = np.array([value], found.dtype)
        self.communicator.mpi_comm.Allreduce(own, found, MPI.MAX)
        return float(found[0])

    def share_of(self, dataset: Sequence) -> Sequence:
        """Returns the examples of a dataset that this rank evaluates.

        Each example belongs to one rank. If the number of examples is not a multiple of
        the number of ranks, the first ranks have one more.

        Args:
            dataset (sequence): The same on all ranks; nothing is sent or copied.

        Raises:
            ValueError: If there are fewer examples than ranks.
        """
        if self.communicator is None:
            return dataset
        n = len(dataset)
        if n < self.size:
            raise ValueError(
                f"{n} examples to evaluate on are too few for {self.size} ranks: start "
                f"at most {n}"
            )
        from chainermn import scatter_index

        start, stop = scatter_index(n, self.communicator, force_equal_length=False)
        return SubDataset(dataset, start, stop)

    def evaluator(self, evaluator: T) -> T:
        """Makes an Evaluator of this rank's share report the means of all ranks."""
        if self.communicator is None:
            return evaluator
        from chainermn import create_multi_node_evaluator

        return create_multi_node_evaluator(evaluator, self.communicator)

    def abort(self, code: int) -> None:
        """Ends all ranks at once, with an exit code; does nothing for one rank."""
        if self.communicator is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            self.communicator.mpi_comm.Abort(code)

    def _exchange(self, error: str | None, result: Any = None) -> Any:
        found = self.communicator.mpi_comm.allgather((error, result))
        errors = [(rank, e) for rank, (e, _) in enumerate(found) if e is not None]
        if not errors:
            return found[0][1]
        rank, text = errors[0]
        raise RanksError(f"rank {rank}: {text}" if rank else text)
