import multiprocessing
import sys
import threading
import time
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

pytest.importorskip("numba")

from numba import carray

from chainer_revive.cpu import blas
from chainer_revive.cpu.numba import threads
from chainer_revive.cpu.numba.intrinsics import add, integers, load, unpack, unpack_both


class Counts(NamedTuple):
    counts: int
    by: int = 1


@threads.Task
def count_up(arguments, start, stop):
    """Adds a number to elements [start, stop)."""
    a = unpack(arguments, Counts)
    counts = carray(integers(a.counts), stop)
    for i in range(start, stop):
        counts[i] += a.by


@threads.Task
def count_both_up(arguments, start, stop):
    a, b = unpack_both(arguments, Counts, Counts)
    first, second = carray(integers(a.counts), stop), carray(integers(b.counts), stop)
    for i in range(start, stop):
        first[i] += a.by
        second[i] += b.by


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 2, 7, 1000, 4097])
@pytest.mark.parametrize("grain", [1, 3, 100, 5000])
def test_each_element_has_its_turn_once(count, n, grain):
    counts = np.zeros(n, np.int64)
    with mock.patch.object(threads, "count", lambda: count):
        for _ in range(30):
            threads.run(count_up, n, grain, Counts(counts, 7))
    assert np.all(counts == 30 * 7)


def test_callers_in_several_threads():
    def call(counts):
        for _ in range(300):
            threads.run(count_up, len(counts), 10, Counts(counts))

    results = [np.zeros(500, np.int64) for _ in range(4)]
    callers = [threading.Thread(target=call, args=(counts,)) for counts in results]
    with mock.patch.object(threads, "count", lambda: 3):
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert all(np.all(counts == 300) for counts in results)


def test_without_threadpoolctl(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    blas.controller.cache_clear()
    try:
        assert threads.count() == 3
    finally:
        blas.controller.cache_clear()


def test_two_sets_of_arguments():
    first, second = np.zeros(3, np.int64), np.zeros(3, np.int64)
    threads.run(count_both_up, 3, 1, Counts(first, 2), Counts(second, 5))
    assert first.tolist() == [2] * 3 and second.tolist() == [5] * 3


def test_as_many_threads_as_blas():
    with threadpool_limits(1, user_api="blas"):
        assert threads.count() == 1
    with threadpool_limits(3, user_api="blas"):
        assert threads.count() == 3


@threads.Task
def meet(arguments, start, stop):
    """Waits until two parts are there, each in a thread of its own."""
    here = unpack(arguments, Counts).counts
    add(here, 1)
    for _ in range(20_000_000):
        if load(here) >= 2:
            add(here + 8, 1)
            return


def have_met():
    counts = np.zeros(2, np.int64)
    for _ in range(200):  # a thread that is only now woken is late
        counts[:] = 0
        threads.run(meet, 2, 1, Counts(counts))
        if counts[1] == 2:
            return True
    return False


@threads.Task
def mark(arguments, start, stop):
    """Counts a part, and waits until another thread has one, too."""
    here = unpack(arguments, Counts).counts
    add(here + 8 * (1 + start), 1)
    add(here, 1)
    for _ in range(1_000_000):
        if load(here) >= 2:
            return


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_threads_that_work_at_the_same_time_have_each_part_once(n):
    with mock.patch.object(threads, "count", lambda: 2):
        assert have_met()
        for _ in range(20):
            counts = np.zeros(1 + n, np.int64)
            threads.run(mark, n, 1, Counts(counts))
            assert counts.tolist() == [n] + n * [1]


def send_whether_met(connection):
    connection.send(have_met())


@pytest.mark.skipif(not hasattr(threads.os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_parts_run_at_the_same_time_and_after_a_fork_too():
    with mock.patch.object(threads, "count", lambda: 2):
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


@threads.Task
def be_slow(arguments, start, stop):
    """All but the first part take long."""
    a = unpack(arguments, Counts)
    counts = carray(integers(a.counts), stop)
    if start > 0:
        for _ in range(100_000):
            load(a.counts)
    for i in range(start, stop):
        counts[i] = 1


def test_returns_when_the_last_part_is_done():
    with mock.patch.object(threads, "count", lambda: 2):
        for _ in range(200):
            counts = np.zeros(2, np.int64)
            threads.run(be_slow, 2, 1, Counts(counts))
            assert counts.tolist() == [1, 1]


def test_where_no_thread_can_be_started():
    counts = np.zeros(100, np.int64)
    with (
        mock.patch.object(threads, "count", lambda: 50),
        mock.patch.object(threads.threading.Thread, "start", side_effect=RuntimeError),
    ):
        threads.run(count_up, len(counts), 1, Counts(counts, 2))
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
        assert threads.address(array) == array.ctypes.data
