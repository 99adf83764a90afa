"""The mean of gradients over ranks of one machine, on CPUs.

Sums are taken in the order of the ranks, so that the result does not depend on the way
that the gradients take, and each element on one rank, so that all have the same bits.
"""

from __future__ import annotations

import functools
import weakref
import zlib
from collections.abc import Sequence
from typing import Any

import chainer
import numpy as np
from mpi4py import MPI

from chainer_revive import registry
from chainer_revive.compat.runtime import to_receive
from chainer_revive.cpu import compiled
from chainer_revive.cpu.adapters.all_parameters import are_apart
from chainer_revive.multinode import updates
from chainer_revive.multinode.shared_memory import share

# In which dtype gradients are summed. MPI knows no float16.
_SUMMED_IN = {
    np.dtype(np.float16): np.dtype(np.float32),
    np.dtype(np.float32): np.dtype(np.float32),
    np.dtype(np.float64): np.dtype(np.float64),
}
_FLOAT32 = np.dtype(np.float32)
_IN_CACHE = 1 << 17  # bytes of gradients that a rank shares at a time
_LINE = 64  # bytes of the cache line that has the counter of barriers
_IN_MESSAGES = 1 << 22

# Pieces of flat gradients that are exchanged together, and where each begins.
Bucket = list[tuple[int, np.ndarray]]
# The place in a bucket, which array it is of, and where it begins and ends there.
Piece = tuple[int, int, int, int]

_ways: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def average(
    communicator: Any, model: chainer.Link, params: Sequence[chainer.Parameter]
) -> Sequence[chainer.Parameter]:
    """Puts the mean over all ranks into gradients, for ChainerMN's naive communicator.

    A gradient that is missing counts as zeros.

    Args:
        communicator (~chainermn.CommunicatorBase): The communicator.
        model: What the parameters are of.
        params: Those whose gradients are exchanged.

    Returns:
        The parameters that are left to ChainerMN: all, or none.

    Raises:
        ValueError: If ranks have gradients of different parameters, shapes or dtypes.
    """
    for param in params:
        _give_gradient(param)
    if communicator not in _ways:
        _ways[communicator] = _find_way(communicator)
    if (way := _ways[communicator]) is None:
        return params
    named = {
        id(param): (name, param)  # once, though links may share it
        for name, param in sorted(model.namedparams())
        if param.array is not None and param.grad is not None
    }
    _separate([param for _, param in named.values()])
    grads = {name: param.grad for name, param in named.values()}
    is_for_us, is_compiled = _agree(communicator, grads)
    if not is_for_us:
        return params
    if is_compiled and isinstance(way, _Shared):
        way.in_one_pass(*updates.with_step(model, [*grads.values()]))
    else:
        for dtype in dict.fromkeys(_SUMMED_IN.values()):
            of_dtype = [g for g in grads.values() if _SUMMED_IN[g.dtype] == dtype]
            # What is no number, Chainer notices.
            with np.errstate(all="ignore"):
                way.average([g.reshape(-1) for g in of_dtype], dtype)
    if chainer.is_debug():
        for grad in grads.values():
            communicator._ensure_all_finite(grad)
    return ()


def _give_gradient(param: chainer.Parameter) -> None:
    """Makes sure that a gradient is there, in memory without gaps that is its own.

    ChainerMN puts the mean of another one into a copy, which it forgets.
    """
    grad = param.grad
    if grad is None:
        param.grad = param.xp.zeros_like(param.array)
    elif (received := to_receive(grad)) is not grad:
        param.grad = received


def _separate(params: Sequence[chainer.Parameter]) -> None:
    """Makes sure that no two gradients share memory, as those of a sum do."""
    arrays = [p for p in params if type(p.grad) is np.ndarray and p.grad.size]
    if are_apart([p.grad for p in arrays]):
        return
    end = 0
    for param in sorted(arrays, key=_address):
        if _address(param) < end:
            param.grad = param.grad.copy()
        else:
            end = _address(param) + param.grad.nbytes


def _address(param: chainer.Parameter) -> int:
    return param.grad.__array_interface__["data"][0]


def _find_way(communicator: Any) -> _Shared | _Messages | None:
    """Returns how gradients are exchanged, the same on all ranks.

    MPI knows the way between machines better.
    """
    comm, n = communicator.mpi_comm, communicator.size
    if not communicator.intra_size == n > 1:
        return None
    memory = share(comm, 2 * (n + 1) * _IN_CACHE + _LINE)
    if memory is None:
        return _Messages(comm)
    met = memory[-_LINE:].view(np.int64)
    return _Shared(comm, memory[:-_LINE].reshape(2, n + 1, _IN_CACHE), met)


def _agree(communicator: Any, grads: dict[str, Any]) -> tuple[bool, bool]:
    """Tells whether all ranks' gradients are to be summed here, and by compiled loops.

    Raises:
        ValueError: If they are not those of the same parameters.
    """
    names = zlib.crc32("\n".join(grads).encode())
    kinds = hash(tuple([(*grad.shape, grad.dtype.num) for grad in grads.values()]))
    is_for_us = registry.is_on("cpu") and all(
        type(grad) is np.ndarray and grad.dtype in _SUMMED_IN for grad in grads.values()
    )
    is_compiled = (
        bool(grads)
        and all(grad.dtype == _FLOAT32 for grad in grads.values())
        and compiled.loops(_FLOAT32) is not None
    )
    own = np.array([names, kinds, is_for_us, is_compiled])
    found = np.empty((communicator.size, 4), own.dtype)
    communicator.mpi_comm.Allgather(own, found)
    if (found[:, :2] != found[0, :2]).any():
        raise ValueError(_difference(communicator, grads))
    return bool(found[:, 2].all()), bool(found[:, 3].all())


def _difference(communicator: Any, grads: dict[str, Any]) -> str:
    own = {name: f"{grad.dtype} {grad.shape}" for name, grad in grads.items()}
    first, *others = communicator.mpi_comm.allgather(own)
    rank, name = next(
        (rank, name)
        for rank, other in enumerate(others, 1)
        for name in sorted({*first, *other})
        if first.get(name) != other.get(name)
    )
    return (
        f"the gradient of {name} is {others[rank - 1].get(name, 'missing')} on rank "
        f"{rank} and {first.get(name, 'missing')} on rank 0: give all ranks the same "
        "network, and let zero_fill be True where they use different parts of it"
    )


class _Shared:
    """Exchanges through memory that all ranks share, a part that fits into the cache.

    Args:
        comm: All ranks.
        memory: uint8 (2, ranks + 1, bytes), for what each rank has and for the mean,
            twice, so that there is one barrier for each bucket.
        met: int64, 0 at first: for the barriers of compiled loops.
    """

    def __init__(self, comm: MPI.Comm, memory: np.ndarray, met: np.ndarray) -> None:
        self._comm = comm
        self._memory = memory
        self._met = met
        self._arrived = 0

    def in_one_pass(
        self,
        tensors: Sequence[Sequence[np.ndarray]],
        rates: Sequence[tuple[float, ...]],
        loop: str,
    ) -> None:
        """Puts the mean into gradients by a compiled loop, with a step if there is one.

        Args:
            tensors, rates, loop: As :func:`~chainer_revive.cpu.numba.exchange` takes
                them.
        """
        memory, exchange = (
            self._memory.view(_FLOAT32),
            compiled.loops(_FLOAT32).exchange,
        )
        sizes = tuple([grad.size for grad, *_ in tensors])
        cut = _cut_for_loops(sizes, memory.shape[2], self._comm.size)
        arrived = self._arrived
        # Before, for a signal may end this by an exception.
        self._arrived += exchange.count_arrivals(cut, self._comm.size)
        exchange.exchange(
            *(tensors, rates, loop, cut),
            *(memory, self._met, arrived, self._comm.rank),
        )

    def average(self, arrays: list[np.ndarray], dtype: np.dtype) -> None:
        """Puts the mean into flat arrays; sums are of ``dtype``."""
        comm, memory = self._comm, self._memory.view(dtype)
        buckets, share = _cut_arrays(arrays, memory.shape[2], comm.size)
        for i in range(len(buckets) + 2):
            if i:
                comm.Barrier()
            if i >= 2:
                _unpack(memory[i % 2, -1], self._parts(buckets[i - 2], share)[1])
            if 0 < i <= len(buckets):
                self._add(self._parts(buckets[i - 1], share)[0], memory[(i - 1) % 2])
            if i < len(buckets):
                _pack(self._parts(buckets[i], share)[1], memory[i % 2, comm.rank])

    def _parts(self, bucket: Bucket, share: int) -> tuple[Bucket, Bucket]:
        """Returns the pieces that this rank sums, and those that others do."""
        rank = self._comm.rank
        own = [part for part in bucket if part[0] // share == rank]
        return own, [part for part in bucket if part[0] // share != rank]

    def _add(self, bucket: Bucket, memory: np.ndarray) -> None:
        """Computes the mean of pieces, for this rank and for all."""
        for start, piece in bucket:
            *parts, mean = memory[:, start : start + piece.size]
            parts[self._comm.rank] = piece
            _mean(parts, mean)
            piece[...] = mean


class _Messages:
    """Exchanges by messages of MPI, where ranks can share no memory."""

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm

    def average(self, arrays: list[np.ndarray], dtype: np.dtype) -> None:
        """Does the same as :meth:`_Shared.average`."""
        comm = self._comm
        buckets, share = _cut_arrays(arrays, _IN_MESSAGES // dtype.itemsize, comm.size)
        every, parts = np.zeros((2, comm.size, share), dtype)
        mean = np.empty(share, dtype)
        for bucket in buckets:
            _pack(bucket, every.reshape(-1))
            comm.Alltoall(every, parts)
            _mean(parts, mean)
            comm.Allgather(mean, every)
            _unpack(every.reshape(-1), bucket)


@functools.lru_cache(16)
def _cut(
    sizes: tuple[int, ...], most: int, n_rank: int
) -> tuple[list[list[Piece]], int]:
    """Cuts flat arrays into buckets, and where the shares of ranks meet.

    Returns:
        tuple: The buckets, of at most so many elements, and the size of a share.
    """
    size = min(most, sum(sizes))
    share = -(-size // n_rank)
    buckets: list[list[Piece]] = []
    room = 0
    for which, n in enumerate(sizes):
        start = 0
        while start < n:
            if not room:
                buckets.append([])
                room = size
            place = size - room
            stop = min(n, start + min(room, share - place % share))
            buckets[-1].append((place, which, start, stop))
            room -= stop - start
            start = stop
    return buckets, share


def _cut_arrays(
    arrays: list[np.ndarray], most: int, n_rank: int
) -> tuple[list[Bucket], int]:
    buckets, share = _cut(tuple([array.size for array in arrays]), most, n_rank)
    return [[(p, arrays[k][i:j]) for p, k, i, j in b] for b in buckets], share


@functools.lru_cache(16)
def _cut_for_loops(
    sizes: tuple[int, ...], most: int, n_rank: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns all pieces, where those of each bucket end, and the size of a share."""
    buckets, share = _cut(sizes, most, n_rank)
    pieces = np.array([piece for b in buckets for piece in b], np.int64)
    return pieces, np.cumsum([len(b) for b in buckets], dtype=np.int64), share


def _pack(bucket: Bucket, memory: np.ndarray) -> None:
    for start, piece in bucket:
        memory[start : start + piece.size] = piece


def _unpack(memory: np.ndarray, bucket: Bucket) -> None:
    for start, piece in bucket:
        piece[...] = memory[start : start + piece.size]


def _mean(parts: Sequence[np.ndarray], mean: np.ndarray) -> None:
    np.add(parts[0], parts[1], mean)
    for part in parts[2:]:
        mean += part
    mean *= 1.0 / len(parts)
