"""Random numbers for one example, the same whichever process or thread reads it.

Chainer's patched iterators number the examples that they read and keep a seed; both are
in a snapshot, and :func:`example_random` makes a generator from them. A worker process
also seeds its own :mod:`random` and :mod:`numpy.random` for each example.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from chainer_revive import worker_errors
from chainer_revive.worker_signals import outlast_signals


def example_random() -> Any:
    """Returns the random generator for the example that is being read.

    While one of Chainer's iterators reads an example, this is a :class:`random.Random`
    that depends only on the seed of the iterator and on the number of examples that it
    has read before, so the result is the same in every process and thread. An iterator
    draws its seed once, from :mod:`random`. Elsewhere, the module :mod:`random` is
    returned.
    """
    reading = _local.reading
    if reading is None:
        return random
    if reading.generator is None:
        seed = reading.seeds.python << 64 | reading.number
        reading.generator = random.Random(seed)
    return reading.generator


class Seeds:
    """The seeds of an iterator, 63 bits each; 0 stands for one not chosen yet.

    Args:
        python, numpy (int): The seeds.
        is_first (bool): Whether they are for the first pass over the dataset.
    """

    def __init__(self, python: int = 0, numpy: int = 0, is_first: bool = True) -> None:
        self._python = python
        self._numpy = numpy
        self._is_first = is_first
        self._lock = threading.Lock()

    def __reduce__(self):
        return Seeds, (self._python, self._numpy, self._is_first)

    @property
    def python(self) -> int:
        with self._lock:
            self._python = self._python or random.getrandbits(63) or 1
            return self._python

    @property
    def numpy(self) -> int:
        # Nothing is drawn from numpy.random, or the iterator would shuffle otherwise
        # than a serial one. So a later pass may find it in the same state.
        salt = 0 if self._is_first else self.python
        with self._lock:
            if not self._numpy:
                _, keys, position, *_ = np.random.get_state()
                digest = hashlib.sha256(keys.tobytes() + b"%d %d" % (position, salt))
                self._numpy = int.from_bytes(digest.digest()[:8], "little") >> 1 or 1
            return self._numpy

    def choose(self) -> None:
        """Chooses both seeds, before workers need them."""
        _ = self.python, self.numpy

    def chosen(self) -> tuple[int, int]:
        return self._python, self._numpy


class Draws(NamedTuple):
    """The part of an iterator's state that concerns random numbers."""

    seeds: Seeds
    count: int = 0  # the examples read so far
    share: tuple[int, int] = (0, 1)  # which part of each batch is read, of how many

    def after(self, n: int) -> Draws:
        return self._replace(count=self.count + n)


def new_draws(iterator: Any) -> Draws:
    """Begins anew, for an iterator that is made or reset."""
    seeds = Seeds(is_first=not hasattr(iterator, "_state"))
    if getattr(getattr(iterator, "_prefetch_loop", None), "thread", None):
        seeds.choose()  # before that thread does it
    return Draws(seeds, share=_share(iterator))


def _share(iterator: Any) -> tuple[int, int]:
    """Returns which part of each batch an iterator reads: its order sampler knows."""
    return getattr(iterator.order_sampler, "share", (0, 1))


def draws_of(iterator: Any) -> Draws:
    """Returns the draws of an iterator, new ones if it is being made."""
    state = getattr(iterator, "_state", None)
    return getattr(state, "draws", None) or Draws(Seeds(), share=_share(iterator))


def serialize_draws(serializer: Callable, iterator: Any) -> Draws:
    """Saves or restores them; a snapshot from before they existed changes nothing."""
    draws = draws_of(iterator)
    values = np.array([draws.count, *draws.seeds.chosen()], np.int64)
    try:
        values = serializer("example_draws", values)
    except KeyError:
        return draws
    if values is None:  # the iterator is being pickled
        return draws
    count, python, numpy = map(int, values)
    if (python, numpy) == draws.seeds.chosen():
        return draws._replace(count=count)
    return Draws(Seeds(python, numpy), count, draws.share)


class _Reading:
    def __init__(self, seeds: Seeds, number: int) -> None:
        self.seeds = seeds
        self.number = number
        self.generator: random.Random | None = None


class _Local(threading.local):
    reading: _Reading | None = None


_local = _Local()


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    outer = _local.reading
    try:
        yield
    finally:
        _local.reading = outer


def fetch(dataset: Sequence, indices: Sequence[int], draws: Draws) -> list:
    """Reads a batch; ``draws`` is that of the state after it."""
    with _as_it_was():
        batch = []
        reading = _local.reading = _Reading(draws.seeds, 0)
        for index, reading.number, _ in visits(indices, draws):
            reading.generator = None
            batch.append(dataset[index])
        return batch


class Visit(NamedTuple):
    """All that a worker needs to read an example."""

    index: int
    number: int
    seeds: Seeds


def visits(indices: Sequence[int], draws: Draws) -> list[Visit]:
    """Lists the examples of a batch; ``draws`` is that of the state after it."""
    n = len(indices)
    part, parts = draws.share
    own = range(n * part // parts, n * (part + 1) // parts)
    first = draws.count - n
    return [Visit(indices[i], first + i, draws.seeds) for i in own]


def tasks(indices: Sequence[int], draws: Draws) -> list[Visit]:
    """Like :func:`visits`, for worker processes, which cannot choose the seeds."""
    draws.seeds.choose()
    return visits(indices, draws)


def read(dataset: Sequence, visit: Visit) -> Any:
    """Reads an example, in a thread."""
    with _as_it_was():
        _local.reading = _Reading(visit.seeds, visit.number)
        return dataset[visit.index]


def read_in_worker(dataset: Sequence, visit: Visit) -> Any:
    """Reads an example in a process that has Python's and NumPy's generators."""
    number = visit.number
    random.seed(visit.seeds.python << 64 | number)
    seed = visit.seeds.numpy
    words = [seed & 0xFFFFFFFF, seed >> 32, number & 0xFFFFFFFF, number >> 32]
    np.random.seed(words)
    return read(dataset, visit)


_dataset: Sequence = ()


def _take(dataset: Sequence) -> None:
    global _dataset
    outlast_signals()
    _dataset = dataset


def _read(visit: Visit) -> Any:
    return worker_errors.read(read_in_worker, _dataset, visit)


def first_batch(
    dataset: Sequence, indices: Sequence[int], draws: Draws, result: list
) -> Callable[[], None]:
    """Starts a worker and returns a function that lets it read the first batch.

    Chainer reads that batch in the main process, to measure it, where it would draw
    from generators that belong to the training.
    """
    pool = multiprocessing.Pool(1, _take, (dataset,))

    def fetch_batch() -> None:
        with pool:
            try:
                result[0] = pool.map(_read, tasks(indices, draws))
            except Exception as error:
                result[0] = error  # this runs in a thread

    return fetch_batch


def ends_epoch(iterator: Any) -> bool:
    """Says whether the next batch of an iterator takes a new order of the examples."""
    state = iterator._state
    n = len(iterator.dataset) if state.order is None else len(state.order)
    return state.order is not None and state.current_position + iterator.batch_size >= n


class _Interrupted(Exception):
    pass


class Asking:
    """Lets the main thread draw a new order when it waits for the batch that needs it.

    Args:
        loop: The prefetching loop of a MultiprocessIterator.
        reset_count (int): When its communicator has another one, nobody waits any more.
    """

    def __init__(self, loop: Any, reset_count: int) -> None:
        self._order_sampler = loop.order_sampler
        self._comm = loop._comm
        self.reset_count = reset_count
        self._answered = threading.Event()

    def __call__(self, order: np.ndarray, position: int) -> np.ndarray:
        self._question = order, position
        self._answered.clear()
        with self._comm._lock:
            self._comm.asking = self
            self._comm._not_empty_cond.notify()
        while not self._answered.wait(0.1):
            if self._comm._reset_count != self.reset_count:
                raise _Interrupted
        return self._order

    def answer(self) -> bool:
        if self._comm._reset_count != self.reset_count:
            return False
        self._order = self._order_sampler(*self._question)
        self._answered.set()
        return True


def answer(comm: Any) -> bool:
    """Draws the order that the prefetching thread waits for, in the main thread."""
    asking = getattr(comm, "asking", None)
    if asking is None:
        return False
    answered = asking.answer()
    comm.asking = None  # not where the sampler failed, which it will do again
    return answered


def attempt(loop: Any) -> bool:
    """Does a task of the prefetching thread, unless it is interrupted by a reset.

    An error takes the place of the batch, for the main thread to raise.
    """
    try:
        return loop._task()
    except _Interrupted:
        return True
    except Exception as error:
        loop._comm.put(error, loop.prefetch_state, loop.asking.reset_count)
        return True
