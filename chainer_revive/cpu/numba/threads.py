"""Threads that share the work of compiled tasks, as many as NumPy's BLAS has.

A thread that has had work looks out for more for a millisecond or so before it goes to
sleep, since to wake it takes longer than most tasks, and as long as several tasks are
done in a row, which cannot wake it. Meanwhile it gives way to others.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from array import array
from collections.abc import Callable, Iterable
from queue import SimpleQueue

import numpy as np

from chainer_revive.cpu import blas, compiled, steps
from chainer_revive.cpu.numba import symbols
from chainer_revive.cpu.numba.intrinsics import (
    add,
    call,
    exchange,
    give_way,
    jit,
    load,
    store,
)
from chainer_revive.cpu.numba.later import types
from chainer_revive.cpu.numba.memory import allocate, allocate_aligned
from chainer_revive.cpu.numba.native import Native

_LOOKS = 3000  # for work, before a thread goes to sleep
_MOST = 1 << 16  # parts
_LIMIT = _MOST * _MOST

# Where in the common memory, in bytes. _NEXT is the number of a piece of work, times
# _LIMIT, plus how many of its parts were taken from the front, plus _MOST times how
# many from behind: who counts up has a part. A late thread cannot take a part of a
# piece that is over, as the number has changed.
_NEXT, _DONE, _AWAKE, _BUSY = 0, 64, 128, 192
_TASK, _ARGUMENTS, _N, _STEP, _PARTS, _WANTED, _IN_ROWS = range(256, 312, 8)

_SIGNATURE = types.void(types.CPointer(types.intp), types.intp, types.intp)


class Task(Native):
    """A function that is compiled when it is first run, and kept on disk.

    Args:
        function: ``function(arguments, start, stop)`` does a part of the work. It gets
            its arguments back by ``unpack(arguments, cls)``, with the class of the
            NamedTuple that :func:`run` was given.
        options: Of ``numba.cfunc``.
    """

    def __init__(self, function: Callable, **options) -> None:
        super().__init__(function, _SIGNATURE, **options)


def run(task: Task, n: int, grain: int, arguments: tuple, second: tuple = ()) -> None:
    """Does a task for all of range(n), cut into parts that may run at the same time.

    Args:
        n (int): At least one.
        grain (int): How many make a part that is worth a thread. All parts but the last
            have a multiple of this.
        arguments: A NamedTuple of arrays and integers. The task gets an int64 for each
            field: for an array its address.
        second: Another one.
    """
    arguments += second
    if (record := steps.recorder()) is not None:
        record(task, arguments, n, grain)
    values = [address(a) if type(a) is np.ndarray else a for a in arguments]
    packed = array("q", values)
    helpers, step = shares(n, grain)
    if helpers:
        _call_up(helpers)
    # One argument: ctypes takes as long for each of them as for the rest of a call.
    order = array("q", [_place, task.address, packed.buffer_info()[0], n, step])
    _lead.call(order.buffer_info()[0])
    _check()


def shares(n: int, grain: int) -> tuple[int, int]:
    """Returns how many threads help with range(n), and how long parts are."""
    helpers = 0 if n <= grain else min(count() - 1, -(-n // grain) - 1)
    if not helpers:
        return 0, n
    # Some more parts than threads, for threads that are late or held up.
    return helpers, max(1, n // (grain * 4 * (helpers + 1))) * grain


def start_all(where: tuple[int, ...], helpers: int, arrays: Iterable) -> None:
    """Does several tasks, one after another, in one call.

    Args:
        where: Addresses and lengths of two arrays of int64. The first has for each task
            its address, that of its arguments, n and the step; the second for each
            argument that is an array of those given: its address, which array it is,
            and how far it begins after that.
        helpers: The largest number of threads that help with one of them.
        arrays: NumPy arrays.
    """
    if helpers:
        _call_up(helpers)
    order = array("q", [_place, *where, *map(id, arrays)])
    _lead_all.call(order.buffer_info()[0])
    _check()


def _check() -> None:
    if symbols.failed:
        symbols.failed.clear()
        # Nothing else can fail: shapes fit, and no integer is divided by zero.
        raise MemoryError("compiled loops could not get the memory that they need")


def get_ready() -> None:
    """Loads, or compiles, what every task needs.

    Raises:
        ImportError: That needs Numba, which cannot be imported.
        RuntimeError: Numba finds no folder for its cache.
    """
    for native in (allocate, allocate_aligned, _lead, _lead_all, _follow):
        native.address  # noqa: B018


def address(a: np.ndarray) -> int:
    """Returns ``a.ctypes.data`` in a fifth of the time.

    NumPy's C interface has it where the head of the Python object ends.
    """
    return _read(id(a) + _HEAD).value


_read = ctypes.c_int64.from_address
_HEAD = object.__basicsize__


@jit
def data_of(a):
    """The same for compiled code, of ``id(a)``."""
    return load(a + _HEAD)


def count() -> int:
    """Returns how many threads may work, the calling one included.

    ``OMP_NUM_THREADS`` and threadpoolctl limit them with those of BLAS.
    """
    if library := blas.controller():
        return blas.counting(library)()
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() else os.cpu_count() or 1


def _start_anew() -> None:
    """A process has no threads at first, nor after a fork."""
    global _lock, _memory, _place, _sleepers, _threads
    _lock = threading.Lock()
    _memory = array("q", [0] * 40)
    _place, _ = _memory.buffer_info()
    _sleepers = SimpleQueue()
    _threads = 0


_start_anew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


def _call_up(wanted: int) -> None:
    """Starts or wakes threads; this task may be done before they are there."""
    global _threads
    if _memory[_WANTED // 8] == wanted <= _memory[_AWAKE // 8]:
        return
    with _lock:
        _memory[_WANTED // 8] = wanted
        while _threads < wanted:
            arguments = _memory, _sleepers
            try:
                threading.Thread(
                    target=_serve, args=arguments, name=compiled.THREAD, daemon=True
                ).start()
            except RuntimeError:  # The system has no more: it goes without.
                return
            _threads += 1
        coming = _memory[_AWAKE // 8] + _sleepers.qsize()
        for _ in range(wanted - coming):
            _sleepers.put(None)


def _serve(memory: array, sleepers: SimpleQueue) -> None:
    place, _ = memory.buffer_info()
    while True:
        _follow.call(place, _LOOKS)
        sleepers.get()


@functools.partial(Native, signature=types.void(types.intp))
def _lead(order):
    task, arguments = load(order + 8), load(order + 16)
    _share(load(order), task, arguments, load(order + 24), load(order + 32))


@functools.partial(Native, signature=types.void(types.intp))
def _lead_all(order):
    calls, count = load(order + 8), load(order + 16) // 4
    places, found = load(order + 24), load(order + 32) // 3
    for i in range(found):
        place = places + 24 * i
        a = load(order + 40 + 8 * load(place + 8))
        store(load(place), data_of(a) + load(place + 16))
    memory = load(order)
    add(memory + _IN_ROWS, 1)
    for i in range(count):
        at = calls + 32 * i
        task, arguments = load(at), load(at + 8)
        _share(memory, task, arguments, load(at + 16), load(at + 24))
    add(memory + _IN_ROWS, -1)


@jit
def _share(memory, task, arguments, n, step):
    parts = -(-n // step)
    # One caller at a time has helpers.
    if parts == 1 or not exchange(memory + _BUSY, 0, 1):
        call(task, arguments, 0, n)
        return
    piece = (load(memory + _NEXT) // _LIMIT + 1) * _LIMIT
    store(memory + _NEXT, piece + _LIMIT - 1)  # nobody finds a part while this changes
    store(memory + _DONE, 0)
    store(memory + _TASK, task)
    store(memory + _ARGUMENTS, arguments)
    store(memory + _N, n)
    store(memory + _STEP, step)
    store(memory + _PARTS, parts)
    store(memory + _NEXT, piece)
    while _take_part(memory, 1):
        pass
    while load(memory + _DONE) < parts:
        give_way()
    store(memory + _BUSY, 0)


@functools.partial(Native, signature=types.void(types.intp, types.intp))
def _follow(memory, looks):
    add(memory + _AWAKE, 1)
    left = looks
    while left and load(memory + _AWAKE) <= load(memory + _WANTED):
        if _take_part(memory, _MOST):
            left = looks
        elif not load(memory + _IN_ROWS):
            left -= 1
        give_way()
    add(memory + _AWAKE, -1)


@jit
def _take_part(memory, one):
    """Does another part, if there is one: from the front (1) or from behind (_MOST).

    So a thread meets what the last loop left in its cache. Every other piece of work
    is done from the middle outwards: its parts there are the last ones used.
    """
    while True:
        taken = load(memory + _NEXT)
        front, behind = taken % _MOST, taken // _MOST % _MOST
        parts = load(memory + _PARTS)
        if front + behind >= parts:
            return False
        task = load(memory + _TASK)
        arguments = load(memory + _ARGUMENTS)
        n = load(memory + _N)
        step = load(memory + _STEP)
        if exchange(memory + _NEXT, taken, taken + one):
            break
    i = front if one == 1 else parts - 1 - behind
    if taken // _LIMIT % 2:
        middle = parts // 2
        i = middle - 1 - i if i < middle else parts - 1 - (i - middle)
    call(task, arguments, i * step, min(n, (i + 1) * step))
    add(memory + _DONE, 1)
    return True
