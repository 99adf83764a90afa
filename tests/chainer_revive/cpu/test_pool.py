import multiprocessing
import threading
import time
from unittest import mock

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

pytest.importorskip("numba")

from numba import carray

from chainer_revive.cpu.loops import pool
from chainer_revive.cpu.loops.intrinsics import add, integers, load


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


def test_as_many_threads_as_blas():
    with threadpool_limits(1, user_api="blas"):
        assert pool.count() == 1
    with threadpool_limits(3, user_api="blas"):
        assert pool.count() == 3


@pool.Task
def meet(arguments, start, stop):
    """Waits until two parts are there, each in a thread of its own."""
    here = arguments[0]
    add(here, 1)
    for _ in range(20_000_000):
        if load(here) >= 2:
            add(here + 8, 1)
            return


def have_met():
    counts = np.zeros(2, np.int64)
    for _ in range(200):  # a thread that is only now woken is late
        counts[:] = 0
        pool.run(meet, 2, 1, counts)
        if counts[1] == 2:
            return True
    return False


def send_whether_met(connection):
    connection.send(have_met())


@pytest.mark.skipif(not hasattr(pool.os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_parts_run_at_the_same_time_and_after_a_fork_too():
    with mock.patch.object(pool, "count", lambda: 2):
        assert have_met()
        time.sleep(0.5)  # until the thread sleeps
        assert have_met()
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=send_whether_met, args=(sender,))
        child.start()
        assert receiver.poll(60)
        assert receiver.recv()
        child.join(60)
    assert child.exitcode == 0


@pool.Task
def be_slow(arguments, start, stop):
    """All but the first part take long."""
    counts = carray(integers(arguments[0]), stop)
    if start > 0:
        for _ in range(100_000):
            load(arguments[0])
    for i in range(start, stop):
        counts[i] = 1


def test_returns_when_the_last_part_is_done():
    with mock.patch.object(pool, "count", lambda: 2):
        for _ in range(200):
            counts = np.zeros(2, np.int64)
            pool.run(be_slow, 2, 1, counts)
            assert counts.tolist() == [1, 1]


def test_where_no_thread_can_be_started():
    counts = np.zeros(100, np.int64)
    with (
        mock.patch.object(pool, "count", lambda: 50),
        mock.patch.object(pool.threading.Thread, "start", side_effect=RuntimeError),
    ):
        pool.run(count_up, len(counts), 1, counts, 2)
    assert np.all(counts == 2)


def test_addresses():
    a = np.zeros((3, 4, 5), np.float32)
    locked = a.copy()
    locked.flags.writeable = False
    arrays = (
        a,
        a[1:, ::-1, 2:],
        a.T,
        locked,
        a[:0],
        np.array(1),
        np.broadcast_to(a, (2, 3, 4, 5)),
    )
    for array in arrays:
        assert pool.address(array) == array.ctypes.data
