"""A record of steps, and a plan by which they are done again elsewhere in memory."""

from __future__ import annotations

import ctypes
import functools
import weakref
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator
from types import NoneType
from typing import Any, NamedTuple

import chainer
import numpy as np
from chainer.functions.array.split_axis import SplitAxis
from chainer.functions.math.average import Mean
from chainer.functions.normalization.batch_normalization import (
    FixedBatchNormalization,
)

from chainer_revive.cpu import steps
from chainer_revive.cpu.buffers import LINE
from chainer_revive.cpu.numba import threads
from chainer_revive.cpu.steps import CannotReplayError
from chainer_revive.same import Same


class Memory:
    """Memory of an array that owns it, from the first step that has it on.

    Attributes:
        first: The number of that step.
        last: That of the step before which it was freed.
        kept: The array, if it outlives the record.
        place: Where it goes in the memory of a plan, if it does not.
    """

    def __init__(self, owner: np.ndarray, first: int, freed: Callable) -> None:
        self.owner = weakref.ref(owner, freed)
        self.first, self.last = first, 0
        self.address, self.size = threads.address(owner), owner.nbytes
        self.is_float = False
        self.kept: np.ndarray | None = None
        self.place = 0

    def meets(self, other: Memory) -> bool:
        """Tells whether both are needed at the same time."""
        return self.first < other.last and other.first < self.last


class View(NamedTuple):
    """An array: where it begins, in bytes, in which memory, and its form."""

    memory: Memory
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype


class Recording:
    """Notes steps, for :func:`chainer_revive.cpu.steps.recorded_by`.

    It keeps no array alive: what is computed in place only if nobody else has an array
    is computed so here.

    Args:
        given: Arrays that functions may read besides what steps have written.
        fixed: Those of them that stay as they are while a plan has its memory.
    """

    def __init__(
        self, given: Iterable[np.ndarray] = (), fixed: Iterable[np.ndarray] = ()
    ) -> None:
        self._given = {id(_owner(a)) for a in given}
        self._fixed = {id(_owner(a)) for a in fixed}
        self._kept: list[Memory] = []  # what may be computed once
        self._steps: list[tuple[Callable, list, int, int]] = []
        self._memories: dict[int, Memory] = {}  # of arrays that are there now
        self._all: list[Memory] = []

    def __call__(self, function, arguments, n: int = 0, grain: int = 0) -> None:
        views = [self.view(a) if type(a) is np.ndarray else a for a in arguments]
        self._steps.append((function, views, n, grain))

    def call(self, function, inputs: tuple, compute: Callable[[], tuple]) -> tuple:
        """Calls a function of Chainer's, and notes it if it computes without steps.

        It is then called again as a whole.

        Raises:
            CannotReplayError: If it reads an array of which nobody knows where it comes
                from, or with backprop has kept numbers, which its gradient may read.
        """
        before, done = vars(function).copy(), len(self._steps)
        # Where Concat's gradient is split follows from shapes.
        own = () if type(function) is SplitAxis else before.values()
        for a in (*inputs, *_arrays_in(own)):
            if not self._knows(a):
                raise CannotReplayError(
                    f"{function.label} reads an array that no function has computed, "
                    "and that is neither a parameter nor a persistent value of a link: "
                    "compute it in the dataset or with chainer.functions"
                )
        # Its forward mixes steps and NumPy, so that it is called again as a whole.
        is_whole = type(function) is FixedBatchNormalization
        with steps.recorded_by(None if is_whole else self):
            outputs = compute()
        known = {id(_owner(x)) for x in inputs}
        if len(self._steps) > done or all(id(_owner(y)) in known for y in outputs):
            return outputs
        if chainer.config.enable_backprop:
            self._check_kept(function, before)
        again = functools.partial(_call_again, function, len(inputs))
        self(again, (*inputs, *outputs))
        return outputs

    def _check_kept(self, function, before: dict[str, Any]) -> None:
        for name, value in vars(function).items():
            is_new = name not in before or before[name] is not value
            if is_new and not (name in _OF_NODES or _is_of_shapes(function, value)):
                raise CannotReplayError(
                    f"{function.label} keeps what it computes, in {name}"
                )
        if isinstance(function, chainer.function.FunctionAdapter):
            raise CannotReplayError(f"{function.label} may keep what it computes")

    def gradient(self, function, gx: np.ndarray) -> None:
        """Sees whether a gradient comes from a step.

        Raises:
            CannotReplayError: If it does not.
        """
        if not self._knows(gx):
            raise CannotReplayError(
                f"{function.label} computes its gradient outside of functions"
            )

    def kept(
        self, source: np.ndarray, shape: tuple[int, ...], dtype
    ) -> np.ndarray | None:
        """See :func:`chainer_revive.cpu.steps.kept`."""
        if id(_owner(source)) not in self._fixed:
            return None
        y = np.empty(shape, dtype)
        self._kept.append(self.view(y).memory)
        return y

    def result(self, a: np.ndarray) -> View:
        """Returns what tells where a result is.

        Raises:
            CannotReplayError: If it does not come from a step.
        """
        if not self._knows(a):
            raise CannotReplayError("it returns an array that no function has computed")
        return self.view(a)

    def _knows(self, a: np.ndarray) -> bool:
        owner = _owner(a)
        is_known = id(owner) in self._memories or id(owner) in self._given
        return is_known or not (owner.flags.writeable and owner.size)

    def view(self, a: np.ndarray) -> View:
        """Returns what tells where an array is when the steps are done again."""
        owner = _owner(a)
        if (memory := self._memories.get(id(owner))) is None:
            freed = functools.partial(self._freed, id(owner))
            memory = self._memories[id(owner)] = Memory(owner, len(self._steps), freed)
            self._all.append(memory)
        memory.is_float = memory.is_float or a.dtype.kind == "f"
        offset = threads.address(a) - memory.address
        return View(memory, offset, a.shape, a.strides, a.dtype)

    def _freed(self, owner: int, _: weakref.ref) -> None:
        self._memories.pop(owner).last = len(self._steps)

    def plan(self) -> Plan:
        """Returns a plan by which all steps so far are done again."""
        for memory in self._memories.values():
            memory.kept = memory.owner()
        once = {memory.first: memory for memory in self._once()}
        moving = [memory for memory in self._all if memory.kept is None]
        moving = [memory for memory in moving if once.get(memory.first) is not memory]
        return Plan(self._steps, moving, once)

    def _once(self) -> Iterator[Memory]:
        """Yields memories that are written once, by their first step.

        Other steps may change what they have, so that none but such first steps may
        have their sources.
        """
        firsts = {memory.first for memory in self._kept}
        others = {
            id(memory.kept)
            for number, step in enumerate(self._steps)
            if number not in firsts
            for memory in _memories(step)
        }
        fixed = self._fixed - others
        for memory in self._kept:
            found = _memories(self._steps[memory.first])
            stay = [id(other.kept) in fixed for other in found if other is not memory]
            if memory in found and memory.kept is None and all(stay):
                yield memory


def _memories(step: tuple) -> list[Memory]:
    _, arguments, _, _ = step
    return [a.memory for a in arguments if type(a) is View]


def _owner(a: np.ndarray) -> np.ndarray:
    while type(a.base) is np.ndarray:
        a = a.base
    return a


# What every function has.
_OF_NODES = (
    *("_input_indexes_to_retain", "_output_indexes_to_retain", "_output_layouts"),
    *("_retained_output_data", "_is_chainerx_fallback_mode", "chainerx_device"),
)


def _is_of_shapes(function, value: Any) -> bool:
    """Tells whether what a function keeps follows from shapes and dtypes."""
    if not type(function).__module__.startswith("chainer."):
        return False
    if isinstance(value, tuple):
        return all(type(item) is int for item in value)
    return isinstance(value, (bool, str, type, np.dtype, NoneType)) or (
        type(function) is Mean
    )


def _arrays_in(values: Iterable[Any]) -> Iterator[np.ndarray]:
    for value in values:
        if type(value) is np.ndarray:
            yield value
        elif type(value) in (list, tuple):
            yield from _arrays_in(value)


def _call_again(function, n: int, *arrays) -> None:
    for y, values in zip(arrays[n:], function.forward(arrays[:n]), strict=True):
        if y.shape != values.shape:
            raise CannotReplayError(
                f"{function.label} returns shape {values.shape}, no longer {y.shape}"
            )
        y[...] = values


class Plan:
    """Steps, and where they have what they compute.

    Args:
        recorded: Steps.
        moving: The memories of which each gets a place; one may get a place that
            another one had before.
        once: The memories that are written only once after each :meth:`unbind`, by the
            number of the step that does it.

    Attributes:
        size (int): Of the memory that it takes, in bytes.
        once: The same.
    """

    def __init__(
        self, recorded: list, moving: list[Memory], once: dict[int, Memory]
    ) -> None:
        self._steps = recorded
        self._moving = moving
        self.once = once
        self.size = _arrange(moving)
        self.unbind()

    def clear(self) -> None:
        """Lets go of all that it has: it is of no use any more."""
        self.unbind()
        self._steps, self._moving, self.once = [], [], {}

    def unbind(self) -> None:
        """Lets go of the memory."""
        for memory in self.once.values():
            memory.kept = None
        self._bound: np.ndarray | None = None
        self._parts: list[Callable[[], None]] = []
        self._packed: list[array] = []

    def forget(self, memory: np.ndarray) -> None:
        """Fills memory with NaN, and zeros for integers, which may be indices."""
        memory.fill(0)
        for moving in self._moving:
            if moving.is_float:
                memory[moving.place : moving.place + moving.size] = 0xFF

    def array(self, view: View) -> np.ndarray:
        """Returns an array that was recorded, or the one in its place."""
        owner, offset, shape, strides, dtype = view
        memory: Any = self._bound
        if owner.kept is None:
            offset += owner.place
        else:
            memory = (ctypes.c_char * owner.size).from_address(owner.address)
        return np.ndarray(shape, dtype, memory, offset, strides)

    def run(self, memory: np.ndarray, known: dict[Hashable, np.ndarray]) -> None:
        """Does all steps.

        Args:
            memory: uint8 (size,) or more.
            known: What plans have computed once, by how.

        Raises:
            CannotReplayError: If a step cannot be done with these numbers.
        """
        if memory is not self._bound:
            self._bind(memory, known)
        for part in self._parts:
            try:
                part()
            except CannotReplayError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                raise CannotReplayError(reason) from error

    def _bind(self, memory: np.ndarray, known: dict[Hashable, np.ndarray]) -> None:
        """Prepares the steps for a piece of memory: tasks in a row are one call."""
        self.unbind()
        for number, target in self.once.items():
            self._compute_once(self._steps[number], target, known)
        self._bound = memory
        start = threads.address(memory)
        calls, helpers = array("q"), 0

        def close() -> None:
            nonlocal calls, helpers
            if calls:
                self._packed.append(calls)
                where = (*calls.buffer_info(), 0, 0)
                self._parts.append(
                    functools.partial(threads.start_all, where, helpers, ())
                )
            calls, helpers = array("q"), 0

        for number, (function, arguments, n, grain) in enumerate(self._steps):
            if number in self.once:
                continue
            if not n:
                close()
                arrays = [self.array(a) if type(a) is View else a for a in arguments]
                self._parts.append(functools.partial(function, *arrays))
                continue
            packed = array("q", [_number(a, start) for a in arguments])
            self._packed.append(packed)
            more, step = threads.shares(n, grain)
            helpers = max(helpers, more)
            calls.extend((function.address, packed.buffer_info()[0], n, step))
        close()

    def _compute_once(self, step: tuple, target: Memory, known) -> None:
        function, arguments, n, grain = step
        places = [_place(a, target) if type(a) is View else a for a in arguments]
        key = function, *places
        memory = known.get(key)
        if memory is None:
            # A step that did not write all would be found out by zeros.
            memory = np.zeros(target.size + LINE, np.uint8)
        start = threads.address(memory)
        target.kept, target.address = memory, start + -start % LINE
        if key in known:
            return
        arrays = [self.array(a) if type(a) is View else a for a in arguments]
        if n:
            threads.run(function, n, grain, tuple(arrays))
        else:
            function(*arrays)
        known[key] = memory  # last: what was interrupted is done again


def _place(a: View, target: Memory) -> tuple:
    """Returns what tells an array in memory that stays, or in the target, from others.

    It keeps that memory alive, so that no other one is taken for it.
    """
    memory, *rest = a
    return (memory.size if memory is target else Same(memory.kept), *rest)


def _number(a: Any, start: int) -> int:
    """Returns what a task gets for an argument, if memory that moves starts there."""
    if type(a) is not View:
        return a
    memory = a.memory
    first = start + memory.place if memory.kept is None else memory.address
    return first + a.offset


def _arrange(moving: list[Memory]) -> int:
    """Gives each memory a place, large ones first; returns how far they reach."""
    placed: list[Memory] = []
    for memory in sorted(moving, key=lambda memory: -memory.size):
        end = 0
        for other in placed:  # in the order of their places
            if memory.meets(other):
                if end + memory.size <= other.place:
                    break
                end = max(end, _aligned(other.place + other.size))
        memory.place = end
        placed.append(memory)
        placed.sort(key=lambda memory: memory.place)
    return max([memory.place + memory.size for memory in moving], default=0)


def _aligned(n: int) -> int:
    return -(-n // LINE) * LINE
