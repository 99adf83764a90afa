"""Tells when loops are compiled, and not loaded from the disk."""

from __future__ import annotations

from collections.abc import Callable

from numba.core import event


class _FirstTime(event.Listener):
    def __init__(self, callback: Callable[[], None]) -> None:
        self._callbacks = [callback]

    def on_start(self, _) -> None:
        if self._callbacks:
            self._callbacks.pop()()

    def on_end(self, _) -> None:
        pass


def call_before(callback: Callable[[], None]) -> None:
    """Calls a function once, when Numba next begins to compile."""
    event.register("numba:compile", _FirstTime(callback))
