"""Runs the tasks of a small computation again, without what led to them.

For small arrays it takes longer to prepare tasks than to do them. What a computation
runs is recorded once for each shape, with where its arrays lie: within the inputs, in
buffers of the thread, in constants (arrays that are not writeable) and in the result.
If all is known, and other inputs come out right to the bit, that much is run the next
time; otherwise the computation itself.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.lib.array_utils import byte_bounds

from chainer_revive import explain
from chainer_revive.cpu import buffers
from chainer_revive.cpu.function_node import winograd_wanted
from chainer_revive.cpu.numba import threads

_MANY = 512  # plans of a thread
_LARGE = 1 << 20  # bytes of an input for which preparation does not matter


def run(key: Hashable, inputs: Sequence[np.ndarray], compute: Callable):
    """Returns ``compute(*inputs)``.

    Args:
        key: What ``compute`` depends on besides the numbers and the memory layout of
            its inputs.
        inputs: float32 arrays.
        compute: Returns a float32 array of its own, and does all its work on numbers in
            tasks.
    """
    if explain.is_asked():
        return compute(*inputs)
    forms = [(a.shape, a.strides, a.flags.aligned) for a in inputs]
    key = key, threads.count(), winograd_wanted(), *forms
    plans = buffers.of_thread.plans
    plan = plans.get(key)
    if plan:
        return plan(*inputs)
    if plan is None:
        if len(plans) == _MANY:
            plans.clear()
        plans[key] = _SEEN
    elif plan is _SEEN:
        plans[key] = _plan(inputs, compute) or _NONE
    return compute(*inputs)


_SEEN, _NONE = (), 0  # a shape that may come once only; one without a plan


class _Unknown(Exception):
    """A task has an array of which nobody knows where it comes from."""


def _plan(inputs, compute) -> Plan | None:
    """Returns a plan that has been seen to compute the same, if there can be one."""
    spans = [high - low for low, high in map(byte_bounds, inputs)]
    if any(span > _LARGE for span in spans):
        return None
    random = np.random.RandomState(0)
    others = [_like(a, random.uniform(-1, 1, a.shape)) for a in inputs]
    with threads.recording() as tasks:
        result = compute(*others)
    if result is NotImplemented:
        return None
    try:
        plan = Plan(tasks, others, result)
    except _Unknown:
        return None
    others = [_like(a, random.uniform(-1, 1, a.shape)) for a in inputs]
    wanted = compute(*others)
    plan.forget()
    found = plan.write(np.full(plan.size, np.nan, np.float32), others)
    return plan if found.tobytes() == wanted.tobytes() else None


def _like(a: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns an array with these values and the memory layout of another one."""
    low, high = byte_bounds(a)
    memory = np.zeros(high - low, np.uint8)
    start = threads.address(a) - low
    other = np.ndarray(a.shape, a.dtype, memory, start, a.strides)
    other[...] = values
    return other


class Plan:
    """Tasks that compute a result from inputs.

    Args:
        tasks: As recorded.
        inputs: What they were recorded with.
        result: What they computed.

    Raises:
        _Unknown: If an array is neither of these, nor a buffer or a constant.
    """

    def __init__(self, tasks, inputs, result) -> None:
        low, high = byte_bounds(result)
        self.size = result.size
        if high - low != result.nbytes or threads.address(result) != low:
            raise _Unknown
        self._shape, self._strides = result.shape, result.strides
        self._kept: list[np.ndarray] = []
        self._calls: list[Callable[[], None]] = []
        self._places: list[tuple[array, int, int, int]] = []
        for task, n, grain, arguments in tasks:
            if task is None:
                (a,) = arguments
                if not buffers.is_buffer(a):
                    raise _Unknown
                self._calls.append(functools.partial(a.fill, 0))
                continue
            packed = array("q", [0] * len(arguments))
            for place, a in enumerate(arguments):
                if type(a) is np.ndarray:
                    self._locate(a, (result, *inputs), packed, place)
                else:
                    packed[place] = a
            self._calls.append(functools.partial(threads.start, task, n, grain, packed))

    def _locate(self, a, movable, packed, place) -> None:
        first, last = byte_bounds(a)
        for i, other in enumerate(movable):
            low, high = byte_bounds(other)
            if low <= first and last <= high:
                offset = threads.address(a) - threads.address(other)
                self._places.append((packed, place, i, offset))
                return
        if a.flags.writeable and not buffers.is_buffer(a):
            raise _Unknown
        self._kept.append(a)
        packed[place] = threads.address(a)

    def forget(self) -> None:
        """Fills the buffers, so that a plan which needs their contents fails."""
        for a in self._kept:
            if a.flags.writeable:
                a.fill(np.nan)

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        return self.write(np.empty(self.size, np.float32), inputs)

    def write(self, memory: np.ndarray, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the result in this memory."""
        addresses = [threads.address(memory), *map(threads.address, inputs)]
        for packed, place, i, offset in self._places:
            packed[place] = addresses[i] + offset
        for call in self._calls:
            call()
        return np.ndarray(self._shape, np.float32, memory, 0, self._strides)
