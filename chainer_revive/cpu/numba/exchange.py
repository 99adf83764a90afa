"""The mean of gradients over ranks, and an optimizer's step by it, in one pass.

All ranks call it at the same time. They go through the gradients a bucket at a time,
which fits into the cache: each gives the others its gradients, computes the mean of its
share, and takes the means of the others' shares. A step is made while they are there.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from chainer_revive.cpu.numba import threads
from chainer_revive.cpu.numba.elementwise import part
from chainer_revive.cpu.numba.intrinsics import (
    add,
    floats,
    give_way,
    integers,
    jit,
    load,
    unpack,
)
from chainer_revive.cpu.numba.later import carray
from chainer_revive.cpu.numba.optimizers import by_adam, by_momentum_sgd, by_sgd
from chainer_revive.cpu.numba.threads import Task, data_of

_STEPS = ["", "momentum_sgd", "sgd", "adam"]  # by their numbers in _take
_COLUMNS = 4  # gradient, parameter and at most two states


class Exchange(NamedTuple):
    """What is exchanged, and through what.

    Attributes:
        tensors: int64 (n, 4), ``id`` of each gradient and, where there is a step, of
            its parameter and of its states; else 0.
        n: How many gradients.
        rates: float32 (n, n_rate).
        n_rate: How many rates each has.
        step: Which of ``_STEPS`` is taken.
        pieces: int64 (n_piece, 4), for each its place in a bucket, which gradient it is
            of, and where it begins and ends there.
        n_piece: How many pieces.
        ends: int64 (n_bucket,), where the pieces of each bucket end.
        n_bucket: How many buckets.
        share: How many elements of a bucket a rank computes the mean of.
        memory: float32 (2, n_rank + 1, room), shared by all ranks.
        room: How many elements a rank gives at a time.
        rank, n_rank: This rank, and how many there are.
        met: int64 (1,), shared: how often ranks have arrived.
        arrived: How often they had before.
    """

    tensors: int
    n: int
    rates: np.ndarray
    n_rate: int
    step: int
    pieces: np.ndarray
    n_piece: int
    ends: np.ndarray
    n_bucket: int
    share: int
    memory: np.ndarray
    room: int
    rank: int
    n_rank: int
    met: np.ndarray
    arrived: int


def exchange(
    tensors: Sequence[Sequence[np.ndarray]],
    rates: Sequence[tuple[float, ...]],
    loop: str,
    cut: tuple[np.ndarray, np.ndarray, int],
    memory: np.ndarray,
    met: np.ndarray,
    arrived: int,
    rank: int,
) -> None:
    """Puts the mean over all ranks into gradients, and takes a step by it.

    Args:
        tensors: For each gradient, itself and, where there is a step, the parameter and
            its states; all of float32, without gaps, none sharing memory with others.
        rates: What :mod:`.optimizers` takes as rates; empty where there is no step.
        loop: The name of the function there, or ``""``.
        cut: Pieces, ends and share, as above.
        memory, met, arrived, rank: As above.
    """
    pieces, ends, share = cut
    table = array("q")
    for arrays in tensors:
        table.extend(map(id, arrays))
        table.extend([0] * (_COLUMNS - len(arrays)))
    place, _ = table.buffer_info()
    n_rate = max(map(len, rates))
    numbers = np.array([row or (0.0,) * n_rate for row in rates], np.float32)
    _, n_part, room = memory.shape
    arguments = Exchange(
        *(place, len(tensors), numbers, n_rate, _STEPS.index(loop)),
        *(pieces, len(pieces), ends, len(ends), share),
        *(memory, room, rank, n_part - 1, met, arrived),
    )
    threads.run(_exchange, 1, 1, arguments)


def count_arrivals(cut: tuple[np.ndarray, np.ndarray, int], n_rank: int) -> int:
    """Returns how often ranks arrive in an exchange.

    After the last bucket nobody waits: the next exchange begins with the other half of
    the memory, and a barrier.
    """
    _, ends, _ = cut
    return (len(ends) + 1) * n_rank


@jit
def _pieces_of(ends, i):
    return range(ends[i - 1] if i else 0, ends[i])


@jit
def _take(tensors, rates, step, which, first, mean):
    """Gives a part of a gradient its mean, and takes a step by it."""
    n, last = mean.size, first + mean.size
    g = part(data_of(tensors[which, 0]), first, last)
    if not step or not tensors[which, 1]:
        for j in range(n):
            g[j] = mean[j]
        return
    p = part(data_of(tensors[which, 1]), first, last)
    v = part(data_of(tensors[which, 2]), first, last)
    if step == 1:
        lr, momentum = rates[which, 0], rates[which, 1]
        for j in range(n):
            g[j] = mean[j]
            p[j], v[j] = by_momentum_sgd(p[j], mean[j], v[j], lr, momentum)
        return
    if step == 2:
        lr, momentum = rates[which, 0], rates[which, 1]
        weight_decay, nesterov = rates[which, 2], rates[which, 3]
        for j in range(n):
            g[j] = mean[j]
            p[j], v[j] = by_sgd(
                p[j], mean[j], v[j], lr, momentum, weight_decay, nesterov
            )
        return
    w = part(data_of(tensors[which, 3]), first, last)
    alpha, rate1, rate2 = rates[which, 0], rates[which, 1], rates[which, 2]
    eps, eta, keep = rates[which, 3], rates[which, 4], rates[which, 5]
    for j in range(n):
        g[j] = mean[j]
        p[j], v[j], w[j] = by_adam(
            p[j], mean[j], v[j], w[j], alpha, rate1, rate2, eps, eta, keep
        )


@jit
def _compute_mean(own, rank, parts, stride, n_rank, mean):
    """Sums in the order of the ranks; all but this one's are in the common memory."""
    a = part(own if rank == 0 else parts, 0, mean.size)
    scale = np.float32(1.0 / n_rank)
    for r in range(1, n_rank):
        b = part(own if r == rank else parts + r * stride, 0, mean.size)
        factor = scale if r == n_rank - 1 else np.float32(1)
        if r == 1:
            for j in range(mean.size):
                mean[j] = (a[j] + b[j]) * factor
        else:
            for j in range(mean.size):
                mean[j] = (mean[j] + b[j]) * factor


@Task
def _exchange(arguments, start, stop):
    a = unpack(arguments, Exchange)
    tensors = carray(integers(a.tensors), (a.n, _COLUMNS))
    rates = carray(floats(a.rates), (a.n, a.n_rate))
    pieces = carray(integers(a.pieces), (a.n_piece, 4))
    ends = carray(integers(a.ends), a.n_bucket)
    stride = 4 * a.room
    half = (a.n_rank + 1) * stride
    for i in range(a.n_bucket + 2):
        if i:
            add(a.met, 1)
            while load(a.met) < a.arrived + i * a.n_rank:
                give_way()
        if i >= 2:
            means = a.memory + (i % 2) * half + a.n_rank * stride
            for k in _pieces_of(ends, i - 2):
                place, which = pieces[k, 0], pieces[k, 1]
                begin, end = pieces[k, 2], pieces[k, 3]
                if place // a.share == a.rank:
                    continue
                mean = part(means, place, place + end - begin)
                _take(tensors, rates, a.step, which, begin, mean)
        if 0 < i <= a.n_bucket:
            parts = a.memory + ((i - 1) % 2) * half
            for k in _pieces_of(ends, i - 1):
                place, which = pieces[k, 0], pieces[k, 1]
                begin, end = pieces[k, 2], pieces[k, 3]
                if place // a.share != a.rank:
                    continue
                own = data_of(tensors[which, 0]) + 4 * begin
                at = parts + 4 * place
                mean = part(at + a.n_rank * stride, 0, end - begin)
                _compute_mean(own, a.rank, at, stride, a.n_rank, mean)
                _take(tensors, rates, a.step, which, begin, mean)
        if i < a.n_bucket:
            own = a.memory + (i % 2) * half + a.rank * stride
            for k in _pieces_of(ends, i):
                place, which = pieces[k, 0], pieces[k, 1]
                begin, end = pieces[k, 2], pieces[k, 3]
                if place // a.share == a.rank:
                    continue
                given = part(own + 4 * place, 0, end - begin)
                g = part(data_of(tensors[which, 0]), begin, end)
                for j in range(end - begin):
                    given[j] = g[j]
