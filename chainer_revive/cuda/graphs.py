"""Captures what a function does on a GPU as a CUDA graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import cupy

from chainer_revive.cuda.linear import capturable

Result = TypeVar("Result")


class CudaGraphs:
    """A stream in which graphs are captured and replayed, and their memory.

    The graphs share one pool of memory, since no two of them run at the same time. It
    is theirs alone, so that nothing else is put where they compute.
    """

    keeps_arrays = True  # Graphs read the same arrays for ever.

    def __init__(self) -> None:
        # The legacy default stream cannot be captured.
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._pool = cupy.cuda.MemoryPool()

    def setting(self, function: Callable | None = None) -> tuple:
        """Returns what a graph depends on besides the function: nothing."""
        return ()

    def free(self) -> None:
        """Does nothing: a graph has its memory for ever."""

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """A context that computes in the stream, in turn with the stream outside.

        What it computes comes after what was asked for before, and before what is asked
        for afterwards.
        """
        outer = cupy.cuda.get_current_stream()
        self._stream.wait_event(outer.record())
        try:
            with self._stream:
                yield
        finally:
            outer.wait_event(self._stream.record())

    def capture(
        self, function: Callable[[], Result], inputs: Iterable = ()
    ) -> Callable[[], Result]:
        """Records what a function would do on the GPU, without doing it.

        Args:
            function (callable): Called once, in the stream. It must not wait for the
                GPU, nor copy between it and the host, nor call cuBLAS or cuRAND;
                Chainer's linear layers are made to do without.
            inputs: Not used.

        Returns:
            callable: Does it, and returns what the function returned: the same arrays
            each time.
        """
        with cupy.cuda.using_allocator(self._pool.malloc), capturable():
            self._stream.begin_capture()
            try:
                result = function()
            except BaseException:
                # The stream must leave the capture, which has become invalid.
                with contextlib.suppress(Exception):
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()

        def replay() -> Result:
            graph.launch(self._stream)
            return result

        return replay
