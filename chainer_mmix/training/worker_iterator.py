from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import connection, sharedctypes
from typing import Any, NamedTuple

import numpy as np
from chainer.iterators import SerialIterator
from chainer.iterators._statemachine import IteratorState, iterator_statemachine

from chainer_mmix.checks import check_whole
from chainer_revive import worker_errors
from chainer_revive.example_random import Visit, read_in_worker, tasks
from chainer_revive.worker_signals import outlast_signals

_N_AHEAD = 2  # batches that are read while one is used
_ALIGNMENT = 64
_N_VISIT = 512  # in a message, at most
_N_SENT = 4  # messages that a worker has not answered, at most


class WorkerDiedError(RuntimeError):
    """A process that reads examples was ended from outside."""


class WorkerIterator(SerialIterator):
    """Reads examples in other processes, a few batches ahead.

    Batches, random numbers and snapshots are those of a
    :class:`chainer.iterators.SerialIterator`. Chainer's
    :class:`~chainer.iterators.MultiprocessIterator` does the same, but its workers wait
    at the end of each batch, and if one of them is killed, it waits forever.

    The arrays of an example lie in memory that is shared with the workers, and is
    overwritten after the next call of :meth:`next`. Convert a batch before that, as an
    updater does.

    Args:
        dataset (sequence): The examples.
        batch_size (int): Examples per batch.
        n_workers (int): The number of processes, at least 1. As many as a batch has
            examples are started at most.
        options: Passed on to :class:`~chainer.iterators.SerialIterator`.

    Raises:
        WorkerDiedError: In :meth:`next`, if a worker was killed.
    """

    _state: Any

    def __init__(
        self, dataset: Sequence, batch_size: int, n_workers: int, **options
    ) -> None:
        check_whole("batch_size", batch_size, 1)
        check_whole("n_workers", n_workers, 1)
        self._n_worker = min(n_workers, batch_size)  # others would find nothing
        self._workers: list[_Worker] = []
        self._ahead: deque[_Asked] = deque()
        self._n_asked = 0
        super().__init__(dataset, batch_size, **options)

    def __next__(self) -> list:
        self._previous_epoch_detail = self.epoch_detail
        batch = self._ahead.popleft() if self._ahead else self._ask(self._state)
        if batch is None:
            raise StopIteration
        self._state = batch.state
        last = self._ahead[-1].state if self._ahead else batch.state
        while len(self._ahead) < _N_AHEAD and not self._needs_an_order(last):
            following = self._ask(last)
            if following is None:
                break
            self._ahead.append(following)
            last = following.state
        parts = [worker.receive() for worker in batch.workers]
        return [
            _unpack(example, self._memory)
            for part in parts
            for example in worker_errors.raised(part)
        ]

    next = __next__

    def reset(self) -> None:
        self._forget()
        super().reset()

    def serialize(self, serializer) -> None:
        before = self._situation()
        super().serialize(serializer)
        if self._situation() != before:
            self._forget()

    def finalize(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()
        self._ahead.clear()

    def __del__(self, is_late: Callable[[], bool] = sys.is_finalizing) -> None:
        # Late, they have been ended; after a refused argument, there are none.
        if not is_late() and hasattr(self, "_workers"):
            self.finalize()

    def _needs_an_order(self, state: IteratorState) -> bool:
        # It is drawn when its first batch is asked for, as SerialIterator does.
        if state.order is None:
            return False
        return state.current_position + self.batch_size >= len(state.order)

    def _situation(self) -> tuple:
        position, epoch, is_new_epoch, order, draws = self._state
        order = None if order is None else order.tobytes()
        return position, epoch, is_new_epoch, order, draws.count, draws.seeds.chosen()

    def _forget(self) -> None:
        for batch in self._ahead:
            for worker in batch.workers:
                worker.receive()
        self._ahead.clear()

    def _ask(self, state: IteratorState) -> _Asked | None:
        """Has workers read the batch after a state."""
        state, indices = iterator_statemachine(
            *(state, self.batch_size, self.repeat, self.order_sampler),
            len(self.dataset),
        )
        if indices is None:
            return None
        visits = tasks(indices, state.draws)
        if not self._workers:
            self._start(visits[0])
        slot = self._n_asked % (_N_AHEAD + 1)
        step = min(_N_VISIT, -(-len(visits) // (2 * self._n_worker)))
        workers = []
        for start in range(0, len(visits), step):
            worker = self._workers[start // step % self._n_worker]
            offset = (slot * self.batch_size + start) * self._size
            worker.ask(offset, visits[start : start + step])
            workers.append(worker)
        self._n_asked += 1
        return _Asked(state, workers)

    def _start(self, visit: Visit) -> None:
        # A process of its own, since reading may open files and draw numbers.
        first = _Worker(self.dataset, None, 0)
        try:
            first.ask(0, [visit])
            (example,) = worker_errors.raised(first.receive())
        finally:
            first.end()
        parts = example if isinstance(example, tuple) else ()
        sizes = [_aligned(p.nbytes) for p in parts if isinstance(p, np.ndarray)]
        self._size = sum(sizes)
        n_byte = (_N_AHEAD + 1) * self.batch_size * self._size
        self._memory = sharedctypes.RawArray("b", n_byte) if n_byte else None
        self._workers = [
            _Worker(self.dataset, self._memory, self._size)
            for _ in range(self._n_worker)
        ]


class _Asked(NamedTuple):
    """A batch that is being read.

    Attributes:
        state (IteratorState): The state after it.
        workers (list of _Worker): Who reads its parts, in order.
    """

    state: IteratorState
    workers: list[_Worker]


class _Worker:
    """A process that reads examples. What is received is in the order of asking."""

    def __init__(self, dataset: Sequence, memory: Any, size: int) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        args = dataset, memory, size, theirs, self._connection
        self._process = multiprocessing.Process(target=_work, args=args, daemon=True)
        self._process.start()
        theirs.close()
        self._waiting: deque[tuple] = deque()
        self._n_sent = 0  # and not answered

    def ask(self, offset: int, visits: Sequence[Visit]) -> None:
        self._waiting.append((offset, visits))
        self._send()

    def _send(self) -> None:
        # No more than a pipe holds, or it would wait for a worker that waits for us.
        while self._waiting and self._n_sent < _N_SENT:
            try:
                self._connection.send(self._waiting.popleft())
            except OSError:
                raise self._death() from None
            self._n_sent += 1

    def receive(self) -> list | Exception:
        """Returns the examples, or what went wrong with one of them."""
        connection.wait([self._connection, self._process.sentinel])
        try:
            if not self._connection.poll():
                raise EOFError
            found = self._connection.recv()
        except (EOFError, OSError):
            raise self._death() from None
        self._n_sent -= 1
        self._send()
        return found

    def end(self) -> None:
        self._process.terminate()
        self._process.join()
        self._connection.close()

    def _death(self) -> WorkerDiedError:
        self._process.join(5)
        code = self._process.exitcode
        how = f"with exit code {code}"
        if code is not None and code < 0:
            how = f"by {signal.Signals(-code).name}"
        return WorkerDiedError(
            f"process {self._process.pid}, which read the images, was ended {how}; "
            "where memory is short, a system ends processes by SIGKILL"
        )


class _Shared(NamedTuple):
    """An array in the shared memory."""

    offset: int
    shape: tuple[int, ...]
    dtype: str


def _work(
    dataset: Sequence, memory: Any, size: int, asked: Any, other_end: Any
) -> None:
    outlast_signals()
    other_end.close()  # or it would not break when the main process is gone
    # The main process may go at any moment; then there is nobody to tell.
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            offset, visits = asked.recv()
            asked.send(_read(dataset, memory, size, offset, visits))


def _read(
    dataset: Sequence, memory: Any, size: int, offset: int, visits: Sequence[Visit]
) -> list | Exception:
    found = []
    try:
        for n, visit in enumerate(visits):
            example = worker_errors.read(read_in_worker, dataset, visit)
            found.append(_pack(example, memory, offset + n * size, size))
    except Exception as error:
        return error
    return found


def _pack(example: Any, memory: Any, offset: int, size: int) -> Any:
    if memory is None or type(example) is not tuple:
        return example
    end = min(offset + size, len(memory))
    parts = []
    for part in example:
        if isinstance(part, np.ndarray) and part.size and offset + part.nbytes <= end:
            shared = _Shared(offset, part.shape, part.dtype.str)
            np.copyto(_view(shared, memory), part)
            offset += _aligned(part.nbytes)
            part = shared
        parts.append(part)
    return tuple(parts)


def _unpack(example: Any, memory: Any) -> Any:
    if type(example) is not tuple:
        return example
    return tuple(
        _view(part, memory) if type(part) is _Shared else part for part in example
    )


def _view(shared: _Shared, memory: Any) -> np.ndarray:
    offset, shape, dtype = shared
    return np.ndarray(shape, dtype, memory, offset)


def _aligned(n_byte: int) -> int:
    return -(-n_byte // _ALIGNMENT) * _ALIGNMENT
