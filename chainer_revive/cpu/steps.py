"""What a computation does to memory, step by step, for who records it.

Compiled loops are steps (:func:`chainer_revive.cpu.numba.threads.run`), and so is what
NumPy does to the numbers between them, if it is done by the functions here. Where
nobody records, they add next to nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

_of_thread = threading.local()


class CannotReplayError(Exception):
    """Steps that were recorded cannot be done again as they are."""


class Recorder(Protocol):
    """What is told of each step, before it is done."""

    def __call__(
        self, function: Callable, arguments: tuple, n: int = 0, grain: int = 0
    ) -> None:
        """Notes a step of :func:`do`, or with a size one of compiled loops.

        For those, see :func:`chainer_revive.cpu.numba.threads.run`.
        """

    def call(self, function, inputs: tuple, compute: Callable[[], tuple]) -> tuple:
        """Returns what a function of Chainer's computes.

        It notes the function if that computes without steps.
        """

    def gradient(self, function, gx: np.ndarray) -> None:
        """Notes a gradient by an input of a function."""

    def kept(
        self, source: np.ndarray, shape: tuple[int, ...], dtype
    ) -> np.ndarray | None:
        """Does what :func:`kept` says."""


@contextlib.contextmanager
def recorded_by(record: Recorder | None) -> Iterator[None]:
    """A context in which steps of this thread are recorded, with ``None`` not."""
    outer = recorder()
    _of_thread.record = record
    try:
        yield
    finally:
        _of_thread.record = outer


def recorder() -> Recorder | None:
    """Returns what records this thread now."""
    return getattr(_of_thread, "record", None)


def do(function: Callable, *arguments: Any) -> None:
    """Calls a function that writes to arrays among its arguments, and no others.

    What it does must depend on its arguments alone; all arrays must be among these.
    """
    if (record := recorder()) is not None:
        record(function, arguments)
    function(*arguments)


def kept(source: np.ndarray, shape: tuple[int, ...], dtype) -> np.ndarray | None:
    """Returns an array for what is computed once, while steps are done many times.

    Args:
        source: All that it is computed from, by the next step.

    Returns:
        array: For that step to write all of, and later ones to read; or ``None``
        where the source may change from time to time.
    """
    record = recorder()
    return None if record is None else record.kept(source, shape, dtype)


def filled(shape: tuple[int, ...], dtype, value) -> np.ndarray:
    """Returns an array full of a value, or of those of an array."""
    y = np.empty(shape, dtype)
    do(np.copyto, y, value)
    return y


def contiguous(a: np.ndarray, dtype=None) -> np.ndarray:
    """As ``numpy.ascontiguousarray``."""
    if a.flags.c_contiguous and dtype in (None, a.dtype):
        return a
    y = np.empty(a.shape, dtype or a.dtype)
    do(np.copyto, y, a, "unsafe")
    return y


def concatenate(arrays: Sequence[np.ndarray], axis: int = 0) -> np.ndarray:
    """As ``numpy.concatenate``, for arrays of one shape."""
    first, *others = arrays
    if not others:
        return first
    shape = list(first.shape)
    shape[axis] *= len(arrays)
    y = np.empty(shape, first.dtype)
    do(_join, y, axis, *arrays)
    return y


def take(a: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """As ``a[indices]``, for an array of integers."""
    y = np.empty((len(indices), *a.shape[1:]), a.dtype)
    do(np.take, a, indices, 0, y)
    return y


def _join(y, axis, *arrays):
    np.concatenate(arrays, axis, y)
