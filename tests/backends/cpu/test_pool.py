import multiprocessing
import threading
from unittest import mock

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

pytest.importorskip("numba")

from numba import carray

from chainer_mmix.backends.cpu.loops import pool
from chainer_mmix.backends.cpu.loops.intrinsics import integers


@pool.Task
def count_up(arguments, start, stop):
    """Adds a number to elements [start, stop)."""
    counts = carray(integers(arguments[0]), stop)
    for i in range(start, stop):
        counts[i] += arguments[1]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 2, 7, 1000, 4097])
@pytest.mark.parametrize("grain", [1, 3, 100, 5000])
def test_each_element_has_its_turn_once(threads, n, grain):
    counts = np.zeros(n, np.int64)
    with mock.patch.object(pool, "count", lambda: threads):
        for _ in range(30):
            pool.run(count_up, n, grain, counts, 7)
    assert np.all(counts == 30 * 7)


def test_callers_in_several_threads():
    def call(counts):
        for _ in range(300):
            pool.run(count_up, len(counts), 10, counts, 1)

    results = [np.zeros(500, np.int64) for _ in range(4)]
    callers = [threading.Thread(target=call, args=(counts,)) for counts in results]
    with mock.patch.object(pool, "count", lambda: 3):
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert all(np.all(counts == 300) for counts in results)


def work_in_child(connection):
    counts = np.zeros(1000, np.int64)
    pool.run(count_up, len(counts), 1, counts, 3)
    connection.send(counts.tolist())


@pytest.mark.skipif(not hasattr(pool.os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    with mock.patch.object(pool, "count", lambda: 2):
        work_in_child(mock.Mock())
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=work_in_child, args=(sender,))
        child.start()
        assert receiver.poll(60)
        assert receiver.recv() == [3] * 1000
        child.join(60)
    assert child.exitcode == 0


def test_as_many_threads_as_blas():
    with threadpool_limits(1, user_api="blas"):
        assert pool.count() == 1
    with threadpool_limits(3, user_api="blas"):
        assert pool.count() == 3
