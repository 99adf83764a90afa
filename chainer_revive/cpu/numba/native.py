"""Functions that are compiled when they are first needed, unless their code is kept."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable
from types import FunctionType

from chainer_revive.cpu import compiled
from chainer_revive.cpu.numba import later, objects, store, symbols

_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # A child could not end what another thread began.
    os.register_at_fork(
        before=_lock.acquire,
        after_in_parent=_lock.release,
        after_in_child=_lock.release,
    )

natives: list[Native] = []  # all that there are


class Native:
    """A function for C.

    Args:
        function: What to compile.
        signature: Its types, for ``numba.cfunc``.
        symbol: A name under which loaded code finds it.
        options: Of ``numba.cfunc``.
    """

    def __init__(
        self, function: FunctionType, signature, symbol: str = "", **options
    ) -> None:
        self.function = function
        self._signature = signature
        self._options = {"error_model": "numpy", **options}
        later.needs(function)
        natives.append(self)
        if symbol:
            symbols.compiled[symbol] = lambda: self.address

    def __getattr__(self, name: str):
        # No cached_property: until Python 3.12, that has a lock that a fork may break.
        if name not in ("address", "call"):
            raise AttributeError(name)
        with _lock:
            if name not in self.__dict__:
                made = self._make_address() if name == "address" else self._make_call()
                self.__dict__[name] = made
        return self.__dict__[name]

    def _make_address(self) -> int:
        code = store.read(self.function) if store.can_keep(self.function) else b""
        if code is None:
            return self.compile_and_keep()
        if code:
            # Maybe Numba knows how.
            with contextlib.suppress(objects.UnsuitableError, OSError):
                return objects.load(code, symbols.find)
        return self._compile(store.named(self.function), cache=True).address

    def _make_call(self) -> Callable:
        """Calls the function with integers; other threads may run meanwhile."""
        # ctypes converts an int to a pointer fastest.
        integers = [ctypes.c_void_p] * self.function.__code__.co_argcount
        return ctypes.CFUNCTYPE(None, *integers)(self.address)

    def is_kept(self) -> bool:
        """Tells whether processes can load it without Numba."""
        return store.can_keep(self.function) and bool(store.read(self.function))

    def compile_and_keep(self) -> int:
        """Compiles it for this and later processes, and returns its address."""
        made = self._compile(self.function)
        _, _, (code, _) = made._library.serialize_using_object_code()
        address = None
        if symbols.notes_exceptions(code):
            with contextlib.suppress(objects.UnsuitableError, OSError):
                address = objects.load(code, symbols.find)
        if address is None:
            address, code = made.address, b""
        store.write(self.function, code)
        return address

    def _compile(self, function: FunctionType, **options):
        later.settle()
        _tell_when_compiling()
        from numba import cfunc

        signature = later.value_of(self._signature)
        return cfunc(signature, **options, **self._options)(function)


@functools.cache
def _tell_when_compiling() -> None:
    if compiled.before_compiling is not None:
        from chainer_revive.cpu.numba.compilation import call_before

        call_before(compiled.before_compiling)
