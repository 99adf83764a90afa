"""What examples draw at random does not depend on who reads them."""

import random
import threading

import chainer
import numpy as np
import pytest
from chainer import iterators
from chainer.datasets import TransformDataset
from chainer.serializers import NpzDeserializer, save_npz

from chainer_mmix.training import load_snapshot
from chainer_mmix.training.extensions import RandomState
from chainer_revive.example_random import example_random

N = 10
MAKE = {
    "serial": iterators.SerialIterator,
    "1 process": lambda *args, **kw: multiprocess(1, *args, **kw),
    "3 processes": lambda *args, **kw: multiprocess(3, *args, **kw),
    "threads": lambda *args, **kw: iterators.MultithreadIterator(
        *args, **kw, n_threads=3
    ),
}


PAIRS = [(name, name) for name in MAKE] + [("3 processes", "serial")]


def multiprocess(n, *args, **kw):
    return iterators.MultiprocessIterator(*args, **kw, n_processes=n, n_prefetch=4)


def by_example_random(i):
    return i, example_random().random()


def by_globals(i):
    return i, random.random(), np.random.rand()


def seed():
    random.seed(5)
    np.random.seed(5)


def data(transform):
    return TransformDataset(np.arange(N), transform)


def batches(iterator, n):
    # As dropout would, in the main process, between the batches.
    return [(iterator.next(), np.random.rand())[0] for _ in range(n)]


def run(name, transform, n=15, batchsize=4, **kw):
    seed()
    iterator = MAKE[name](data(transform), batchsize, **kw)
    found = batches(iterator, n)
    if name != "serial":
        iterator.finalize()
    return found


@pytest.mark.parametrize("batchsize", [4, 5, 12])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("name", list(MAKE)[1:])
def test_workers_give_what_a_serial_iterator_gives(name, shuffle, batchsize):
    options = {"batchsize": batchsize, "shuffle": shuffle}
    found = run(name, by_example_random, **options)
    assert found == run("serial", by_example_random, **options)


def test_global_generators_of_workers_do_not_depend_on_their_number():
    found = run("3 processes", by_globals)
    assert found == run("1 process", by_globals)
    for column in (1, 2):
        drawn = [example[column] for batch in found for example in batch]
        assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("name", MAKE)
def test_an_example_draws_anew_in_each_epoch(name):
    found = run(name, by_example_random)
    drawn = [example for batch in found for example in batch]
    assert len({number for _, number in drawn}) == len(drawn)
    assert {i for i, _ in drawn} == set(range(N))


def test_another_seed_gives_other_draws():
    first = run("serial", by_example_random, shuffle=False)
    random.seed(6)
    iterator = iterators.SerialIterator(data(by_example_random), 4, shuffle=False)
    other = batches(iterator, 15)
    assert not {d for b in first for _, d in b} & {d for b in other for _, d in b}


def test_two_iterators_draw_differently():
    seed()
    pair = [
        iterators.SerialIterator(data(by_example_random), 4, shuffle=False)
        for _ in range(2)
    ]
    first, second = (iterator.next() for iterator in pair)
    assert not {d for _, d in first} & {d for _, d in second}


@pytest.mark.parametrize("column", [1, 2])
@pytest.mark.parametrize("name", MAKE)
def test_a_second_pass_draws_anew(name, column):
    if name == "threads" and column == 2:
        pytest.skip("threads share the generators of the program")
    transform = by_example_random if column == 1 else by_globals
    seed()
    iterator = MAKE[name](data(transform), 4, repeat=False, shuffle=False)
    passes = []
    for _ in range(2):
        passes.append({example[column] for batch in iterator for example in batch})
        iterator.reset()
    assert len(passes[0] | passes[1]) == 2 * N
    if name != "serial":
        iterator.finalize()


@pytest.mark.parametrize("name", ["serial", "threads"])
def test_an_iterator_without_random_numbers_draws_none(name):
    seed()
    before = random.getstate()
    iterator = MAKE[name](data(lambda i: i), 4)
    batches(iterator, 5)
    assert random.getstate() == before
    getattr(iterator, "finalize", lambda: None)()


@pytest.mark.parametrize("name", MAKE)
def test_workers_leave_the_main_process_alone(name):
    seed()
    iterator = MAKE[name](data(by_example_random), 4, shuffle=False)
    before = np.random.get_state()[1].tolist()
    for _ in range(5):
        iterator.next()
    assert np.random.get_state()[1].tolist() == before
    if name != "serial":
        iterator.finalize()


class Both:
    """Stands for a Trainer in a snapshot."""

    def __init__(self, iterator):
        self.iterator = iterator

    def serialize(self, serializer):
        self.iterator.serialize(serializer["updater"])
        RandomState().serialize(serializer["random"])


@pytest.mark.parametrize("cut", [1, 2, 4, 5, 7])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("name", "then"), PAIRS)
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(
    name, then, shuffle, cut, tmp_path
):
    whole = run("serial", by_example_random, shuffle=shuffle)
    seed()
    first = MAKE[name](data(by_example_random), 4, shuffle=shuffle)
    found = batches(first, cut)
    save_npz(tmp_path / "snapshot.npz", Both(first))
    random.seed(99)
    np.random.seed(99)
    second = MAKE[then](data(by_example_random), 4, shuffle=shuffle)
    load_snapshot(tmp_path / "snapshot.npz", Both(second))
    assert found + batches(second, len(whole) - cut) == whole
    for iterator in (first, second):
        getattr(iterator, "finalize", lambda: None)()


@pytest.mark.parametrize("name", MAKE)
def test_a_pass_depends_on_the_state_of_random_alone(name):
    """So evaluation after a resume is that of an uninterrupted run."""
    found = []
    for earlier in (0, 2):
        iterator = MAKE[name](data(by_example_random), 4, repeat=False, shuffle=False)
        for _ in range(earlier):
            list(iterator)
            iterator.reset()
        seed()
        iterator.reset()
        found.append(list(iterator))
        getattr(iterator, "finalize", lambda: None)()
    assert found[0] == found[1]


@pytest.mark.parametrize("name", MAKE)
def test_a_snapshot_changes_nothing(name, tmp_path):
    whole = run("serial", by_example_random)
    seed()
    iterator = MAKE[name](data(by_example_random), 4)
    found = []
    while len(found) < len(whole):
        found += batches(iterator, 1)
        save_npz(tmp_path / "snapshot.npz", Both(iterator))
    assert found == whole
    getattr(iterator, "finalize", lambda: None)()


def test_snapshots_from_before_the_seeds_load(tmp_path):
    seed()
    iterator = iterators.SerialIterator(data(by_example_random), 4)
    iterator.next()
    save_npz(tmp_path / "new.npz", Both(iterator))
    old = dict(np.load(tmp_path / "new.npz"))
    assert old.pop("updater/example_draws").tolist()[0] == 4
    np.savez(tmp_path / "old.npz", **old)
    loaded = iterators.SerialIterator(data(by_example_random), 4)
    load_snapshot(tmp_path / "old.npz", Both(loaded))
    assert loaded.current_position == 4
    Both(loaded).serialize(NpzDeserializer(old))


def test_an_iterator_that_an_example_contains_has_draws_of_its_own():
    def nested(i):
        inner = iterators.SerialIterator(data(by_example_random), 2)
        before = example_random().random()
        inner.next()
        generator = example_random()
        return before, generator.random()

    seed()
    first = run("serial", nested, n=1)
    assert len({d for example in first[0] for d in example}) == 8


def test_outside_of_iterators_it_is_the_module():
    assert example_random() is random
    chainer.iterators.SerialIterator(data(by_example_random), 4).next()
    assert example_random() is random


def test_an_error_of_an_example_leaves_no_generator_behind():
    def fail(i):
        raise KeyError(i)

    with pytest.raises(KeyError):
        iterators.SerialIterator(data(fail), 4).next()
    assert example_random() is random


def test_an_order_sampler_is_asked_by_the_main_thread():
    threads = []

    def sampler(order, position):
        threads.append(threading.current_thread())
        return np.roll(order, 1)

    iterator = iterators.MultiprocessIterator(
        data(by_globals), 4, n_processes=1, n_prefetch=8, order_sampler=sampler
    )
    found = [example[0] for batch in batches(iterator, 5) for example in batch]
    iterator.finalize()
    assert set(threads) == {threading.main_thread()}
    assert found == [*np.roll(range(N), 1), *np.roll(range(N), 2)]
