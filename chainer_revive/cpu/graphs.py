"""Records what a function does in compiled loops, and does it again in one call.

It is to a CPU what :mod:`chainer_revive.cuda.graphs` is to a GPU.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import chainer
import numpy as np

from chainer_revive.cpu import compiled, heap, steps
from chainer_revive.cpu.buffers import LINE
from chainer_revive.cpu.function_node import settings, watched, winograd_wanted
from chainer_revive.cpu.recording import Plan, Recording, View

Result = TypeVar("Result")

_FLOAT32 = np.dtype(np.float32)
_PROOFS = 2  # how often what is done again must be the same, bit for bit


class CpuGraphs:
    """Records functions, and does them again in memory that they share.

    No two of them run at the same time.

    Args:
        links (list of chainer.Link): What the functions compute with. They may change
            persistent arrays of these, such as running averages.

    Raises:
        ValueError: There are no compiled loops.
    """

    def __init__(self, links: Sequence[chainer.Link]) -> None:
        if compiled.loops(_FLOAT32) is None:
            raise ValueError(
                "steps can be recorded where compiled loops compute: install Numba "
                '(pip install "chainer-mmix[fast]"), and leave CHAINER_MMIX_CPU unset'
            )
        self._roots = links
        self._memory = np.empty(0, np.uint8)
        self._plans: weakref.WeakSet[Plan] = weakref.WeakSet()

    def setting(self) -> tuple | None:
        """Returns what a record depends on besides the function.

        ``None`` if a hook, debug mode or a static graph looks on, or the loops are
        switched off.
        """
        loops = compiled.loops(_FLOAT32)
        own, common = settings()
        if loops is None or watched(own, common):
            return None
        return (
            loops.threads.count(),
            winograd_wanted(),
            own.get("train", common.train),
            own.get("dtype", common.dtype),
        )

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """Does nothing."""
        yield

    def capture(self, function: Callable[[], Result]) -> Callable[[], Result]:
        """Records a function, and undoes what it does to the links.

        Args:
            function (callable): Returns arrays in tuples, lists and dictionaries. Where
                it reads arrays that were there before, these must stay where they are.

        Returns:
            callable: Does it, and returns what the function returned, in memory that
            the next call uses again. The first calls also compare both, with numbers of
            the links that are changed meanwhile, and raise a
            :class:`~chainer_revive.cpu.steps.CannotReplayError` unless all bits agree.

        Raises:
            CannotReplayError: If the function changes numbers of the links that are in
                no arrays.
        """
        recording = Recording()
        with self._unchanged(), steps.recorded_by(recording):
            result = _each(np.ndarray, recording.view, function())
        gc.collect()
        plan = recording.plan()
        self._plans.add(plan)
        proofs = 0

        def replay() -> Result:
            nonlocal proofs
            if proofs < _PROOFS:
                self._prove(function, plan, result)
                proofs += 1
            self._reserve(plan.size)
            averages = self._persistent()
            before = _copies(averages)
            try:
                plan.run(self._memory)
            except BaseException:
                _restore(averages, before)
                raise
            return _each(View, plan.array, result)

        return replay

    def free(self) -> None:
        """Frees the memory in which functions are done again, until the next time.

        The gradients of the links, which may lie there, are cleared.
        """
        if not len(self._memory):
            return
        for root in self._roots:
            root.cleargrads()
        for plan in self._plans:
            plan.unbind()
        self._memory = np.empty(0, np.uint8)
        heap.give_back()

    def _reserve(self, size: int) -> None:
        if len(self._memory) < size:
            self.free()
            heap.give_back()  # what usual steps have left
            memory = np.empty(size + LINE, np.uint8)
            first = -memory.ctypes.data % LINE
            self._memory = memory[first : first + size]

    def _prove(self, function: Callable, plan: Plan, result: Any) -> None:
        """Sees whether a plan does what a function does, with other numbers.

        Raises:
            CannotReplayError: It does not.
        """
        self.free()
        with self._unchanged():
            self._disturb()
            wanted = self._values(function())
        self._reserve(plan.size)
        plan.forget(self._memory)
        with self._unchanged():
            self._disturb()
            plan.run(self._memory)
            found = self._values(_each(View, plan.array, result))
        if found != wanted:
            raise steps.CannotReplayError(
                "not all of its numbers are computed in compiled loops or functions"
            )

    def _disturb(self) -> None:
        """Changes parameters and persistent arrays a little, always by the same."""
        random = np.random.RandomState(0)
        for array in self._arrays():
            if array.dtype.kind == "f":
                array *= random.uniform(0.9, 1.1, array.shape).astype(array.dtype)

    def _state(self) -> Iterator[tuple[Any, str, Any]]:
        """Yields where parameters and persistent values are, and the values."""
        every = [link for root in self._roots for link in root.links()]
        for link in dict.fromkeys(every):
            for name in link._params:
                param = link.__dict__[name]
                yield param, "array", param.array
            for name in link._persistent:
                yield link, name, link.__dict__[name]

    def _arrays(self) -> list[np.ndarray]:
        return [value for *_, value in self._state() if isinstance(value, np.ndarray)]

    def _persistent(self) -> list[np.ndarray]:
        return [
            value
            for owner, _, value in self._state()
            if isinstance(owner, chainer.Link) and isinstance(value, np.ndarray)
        ]

    def _values(self, result: Any) -> list[bytes]:
        """Returns the bits of a result, and of the links' arrays."""
        arrays: list[np.ndarray] = []
        _each(np.ndarray, arrays.append, result)
        return [_digest(array) for array in (*arrays, *self._arrays())]

    @contextlib.contextmanager
    def _unchanged(self) -> Iterator[None]:
        """A context at whose end the links are what they were.

        Raises:
            CannotReplayError: Not only the numbers in its arrays were changed.
        """
        state, arrays = list(self._state()), self._arrays()
        numbers, changed = _copies(arrays), []
        try:
            yield
        finally:
            for (owner, name, value), (*_, now) in zip(
                state, self._state(), strict=True
            ):
                if value is not now:
                    setattr(owner, name, value)
                    changed.append(name)
            _restore(arrays, numbers)
        if changed:
            raise steps.CannotReplayError(f"it replaces {', '.join(changed)}")


def _copies(arrays: list[np.ndarray]) -> list[np.ndarray]:
    return [array.copy() for array in arrays]


def _restore(arrays: list[np.ndarray], numbers: list[np.ndarray]) -> None:
    for array, values in zip(arrays, numbers, strict=True):
        array[...] = values


def _digest(array: np.ndarray) -> bytes:
    """Returns what tells the bits of an array from others."""
    return hashlib.blake2b(np.ascontiguousarray(array)).digest()


def _each(kind: type, function: Callable, result: Any) -> Any:
    """Returns a result in which a function has been applied to all of some class."""
    if isinstance(result, kind):
        return function(result)
    if isinstance(result, dict):
        return {key: _each(kind, function, value) for key, value in result.items()}
    if isinstance(result, (list, tuple)):
        values = [_each(kind, function, value) for value in result]
        if isinstance(result, list):
            return values
        return type(result)(*values) if hasattr(result, "_fields") else tuple(values)
    return result
