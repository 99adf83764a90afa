"""WorkerIterator against SerialIterator: batches, random numbers, states, deaths."""

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from chainer.dataset import DatasetMixin
from chainer.iterators import MultiprocessIterator, SerialIterator
from chainer.serializers import DictionarySerializer, NpzDeserializer

from chainer_mmix.datasets import UnreadablePictureError, example_random
from chainer_mmix.training import WorkerDiedError, WorkerIterator

N = 13


class Noisy(DatasetMixin):
    """Draws from all generators that a worker has."""

    def __len__(self):
        return N

    def get_example(self, i):
        x = np.full((2, 3), i, np.float32) + np.float32(example_random().random() / 4)
        return x.T, np.int32(i), np.float64(random.random()), np.random.rand(2)


def plain(batch):
    return [[np.array(part).tolist() for part in example] for example in batch]


def read(iterator, n):
    """Reads batches, and draws beside them as a network does."""
    found = []
    for _ in range(n):
        found.append((plain(iterator.next()), iterator.epoch_detail))
        found.append((iterator.is_new_epoch, iterator.previous_epoch_detail))
        found.append(np.random.rand())
    return found


def seeded(make):
    random.seed(4)
    np.random.seed(5)
    return make()


@pytest.fixture
def closing():
    made = []
    yield lambda iterator: made.append(iterator) or iterator
    for iterator in made:
        iterator.finalize()
    assert not multiprocessing.active_children()


class Drawn(Noisy):
    """Draws from example_random alone, which a SerialIterator has too."""

    def get_example(self, i):
        return np.float32([[i, example_random().random()]]), np.int32(i)


@pytest.mark.parametrize("n_worker", [1, 3])
@pytest.mark.parametrize("batchsize", [1, 4, 13, 30])
def test_batches_are_those_of_a_serial_iterator(closing, n_worker, batchsize):
    one = seeded(lambda: SerialIterator(Drawn(), batchsize))
    expected = read(one, 9), random.random()
    many = seeded(lambda: closing(WorkerIterator(Drawn(), batchsize, n_worker)))
    assert read(many, 9) == expected[0]


def test_no_worker_is_started_that_would_find_nothing_to_read(closing):
    closing(WorkerIterator(Drawn(), 4, 100)).next()
    assert len(multiprocessing.active_children()) == 4


def test_other_generators_are_seeded_for_each_example_as_by_chainers(closing):
    chainers = seeded(lambda: closing(MultiprocessIterator(Noisy(), 4, n_processes=2)))
    expected = read(chainers, 7)
    for n_worker in (1, 2, 5):
        ours = seeded(lambda n=n_worker: closing(WorkerIterator(Noisy(), 4, n)))
        assert read(ours, 7) == expected


def test_one_pass_in_order_and_once_more(closing):
    iterator = closing(WorkerIterator(Drawn(), 5, 2, repeat=False, shuffle=False))
    for _ in range(2):
        labels = [int(t) for batch in iterator for _, t in batch]
        assert labels == list(range(N))
        with pytest.raises(StopIteration):
            iterator.next()
        iterator.reset()


def saved(iterator):
    serializer = DictionarySerializer()
    iterator.serialize(serializer)
    return {key: np.array(value) for key, value in serializer.target.items()}


@pytest.mark.parametrize("n_before", [0, 1, 3, 5])
def test_it_goes_on_from_the_state_of_either(closing, n_before):
    makes = {
        "serial": lambda: SerialIterator(Drawn(), 4),
        "workers": lambda: closing(WorkerIterator(Drawn(), 4, 2)),
    }
    for first in makes.values():
        before = seeded(first)
        read(before, n_before)
        state, numpy_state = saved(before), np.random.get_state()
        python_state = random.getstate()
        expected = read(before, 6)  # saving it changed nothing
        for other in makes.values():
            after = other()
            read(after, 2)  # which leaves batches that were read ahead
            after.serialize(NpzDeserializer(state))
            np.random.set_state(numpy_state)
            random.setstate(python_state)
            assert read(after, 6) == expected


def test_a_save_does_not_throw_away_what_was_read_ahead(closing, tmp_path):
    class Counting(Drawn):
        def get_example(self, i):
            with (tmp_path / "read").open("a") as file:
                file.write(".")
            return super().get_example(i)

    iterator = closing(WorkerIterator(Counting(), 1, 1))
    for _ in range(6):
        iterator.next()
        saved(iterator)
    time.sleep(0.2)
    assert (tmp_path / "read").stat().st_size <= 6 + 1 + 2  # one to measure, two ahead


def test_examples_of_other_kinds_and_sizes(closing):
    class Odd(DatasetMixin):
        def __len__(self):
            return 6

        def get_example(self, i):
            if i == 2:
                return {"x": np.arange(3)}
            return np.arange(4 * i + 1), np.zeros(0), "text", (np.ones(2),)

    iterator = closing(WorkerIterator(Odd(), 3, 2, shuffle=False))
    expected = Odd()[:]
    for _ in range(2):
        found = iterator.next() + iterator.next()
        assert repr(found) == repr(expected)


class Failing(Drawn):
    def __init__(self, error):
        self._error = error

    def get_example(self, i):
        if i == 6:
            raise self._error
        return super().get_example(i)


def test_an_error_comes_with_its_batch_and_the_next_one_follows(closing):
    error = UnreadablePictureError("6.jpg", "cut short")
    iterator = closing(WorkerIterator(Failing(error), 4, 2, shuffle=False))
    iterator.next()
    with pytest.raises(UnreadablePictureError, match=r"6\.jpg is no picture"):
        iterator.next()
    assert [int(t) for _, t in iterator.next()] == [8, 9, 10, 11]


class Unpicklable(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def test_an_error_that_cannot_be_pickled_is_told(closing):
    iterator = closing(WorkerIterator(Failing(Unpicklable(1, 2)), 13, 1, shuffle=False))
    with pytest.raises(RuntimeError, match="Unpicklable: 1 and 2"):
        iterator.next()


class Killed(Drawn):
    def get_example(self, i):
        if i == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().get_example(i)


def test_a_killed_worker_is_an_error_not_a_wait(closing):
    iterator = closing(WorkerIterator(Killed(), 4, 2, shuffle=False))
    with pytest.raises(WorkerDiedError, match="was ended by SIGKILL; where memory is"):
        for _ in range(3):
            iterator.next()


def test_a_worker_killed_while_it_waits_too(closing):
    iterator = closing(WorkerIterator(Drawn(), 4, 2))
    iterator.next()
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(WorkerDiedError):
        for _ in range(9):
            iterator.next()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_workers_end_when_the_main_process_is_gone(tmp_path):
    pid = os.fork()
    if not pid:
        sys.stderr = (tmp_path / "errors").open("w")
        iterator = WorkerIterator(Drawn(), 4, 3)
        iterator.next()
        time.sleep(0.5)  # until answers lie there that nobody will read
        children = [str(p.pid) for p in multiprocessing.active_children()]
        (tmp_path / "part").write_text(" ".join(children))
        (tmp_path / "part").rename(tmp_path / "children")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    children = (tmp_path / "children").read_text().split()
    assert len(children) == 3
    for _ in range(200):
        alive = [
            c
            for c in children
            if Path(f"/proc/{c}/cmdline").exists()
            and Path(f"/proc/{c}/cmdline").read_bytes()
        ]
        if not alive:
            break
        time.sleep(0.05)
    assert not alive
    assert (tmp_path / "errors").read_text() == ""


class Many(DatasetMixin):
    def __len__(self):
        return 20_000

    def get_example(self, i):
        return {"x": np.full(3, i, np.int32)}  # which is not shared, but sent


@pytest.mark.timeout(120)
def test_batches_larger_than_a_pipe(closing):
    iterator = closing(WorkerIterator(Many(), 9_000, 1, shuffle=False))
    for start in (0, 9_000):
        found = [int(example["x"][0]) for example in iterator.next()]
        assert found == list(range(start, start + 9_000))
