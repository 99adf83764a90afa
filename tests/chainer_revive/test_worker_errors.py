"""What fails in a worker is raised where the batch is asked for."""

import chainer
import numpy as np
import pytest
from chainer import iterators

BATCH = 4


class TwoArguments(Exception):
    """Can be pickled, but not unpickled."""

    def __init__(self, file, reason):
        super().__init__(f"{file}: {reason}")


class Data(chainer.dataset.DatasetMixin):
    def __init__(self, bad, make_error):
        self.bad = bad
        self.make_error = make_error

    def __len__(self):
        return 20

    def get_example(self, i):
        if i == self.bad:
            raise self.make_error()
        return np.full(3, i, np.float32), np.int32(i)


def cut_off():
    return TwoArguments("a.png", "cut off")


def unreadable():
    return OSError("no picture")


@pytest.fixture
def make():
    made = []

    def make(bad, make_error=unreadable, **kw):
        kw = {"shuffle": False, "n_processes": 2, **kw}
        made.append(iterators.MultiprocessIterator(Data(bad, make_error), BATCH, **kw))
        return made[-1]

    yield make
    for iterator in made:
        iterator.finalize()


def labels(batch):
    return [int(t) for _, t in batch]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("shared_mem", [None, 100])
@pytest.mark.parametrize("bad", [1, 13, 19])
@pytest.mark.parametrize("repeat", [True, False])
def test_the_main_thread_raises_the_error(make, bad, shared_mem, repeat):
    iterator = make(bad, shared_mem=shared_mem, n_prefetch=3, repeat=repeat)
    for k in range(5):
        if k == bad // BATCH:
            with pytest.raises(OSError, match="no picture"):
                iterator.next()
        else:  # the others come as ever
            assert labels(iterator.next()) == list(range(4 * k, 4 * k + 4))
    assert iterator.epoch == 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize("bad", [1, 13])
def test_an_error_that_cannot_be_unpickled_is_told(make, bad):
    iterator = make(bad, cut_off)
    with pytest.raises(RuntimeError, match=r"TwoArguments: a\.png: cut off"):
        for _ in range(5):
            iterator.next()


@pytest.mark.timeout(60)
def test_an_error_of_the_order_sampler_is_raised_each_time(make):
    def sampler(order, position):
        if position:
            raise KeyError("order")
        return order

    iterator = make(None, shuffle=None, order_sampler=sampler)
    for _ in range(4):
        iterator.next()
    for _ in range(2):
        with pytest.raises(KeyError, match="order"):
            iterator.next()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("error", [ZeroDivisionError, OSError])
def test_an_error_of_the_prefetching_thread_is_raised(make, error, monkeypatch):
    iterator = make(None, n_prefetch=2)
    assert labels(iterator.next()) == [0, 1, 2, 3]
    pool = iterator._prefetch_loop._pool

    def fail(*args):
        raise error

    monkeypatch.setattr(pool, "map_async", fail)
    with pytest.raises(error):
        for _ in range(4):
            iterator.next()


@pytest.mark.timeout(120)
def test_workers_that_are_replaced_after_each_task(make):
    iterator = make(None, maxtasksperchild=1, shared_mem=100)
    for k in range(30):
        assert labels(iterator.next()) == list(range(4 * (k % 5), 4 * (k % 5) + 4))
