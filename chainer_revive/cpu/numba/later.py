"""Numba's names, for modules with loops.

To import Numba takes as long as to import Chainer, and 100 MB. A process needs it only
to compile; until then, something else is in the place of what Numba makes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from types import FunctionType
from typing import Any


class Later:
    """Is replaced by the value of a function where modules name it (:func:`settle`).

    Its attributes, and what it returns when it is called, are of this kind too.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    @functools.cached_property
    def _value(self) -> Any:
        return self._make()

    def __getattr__(self, name: str) -> Later:
        if name.startswith("_"):
            raise AttributeError(name)
        return Later(lambda: getattr(self._value, name))

    def __call__(self, *args, **kwargs) -> Later:
        def make():
            values = {name: value_of(value) for name, value in kwargs.items()}
            return self._value(*map(value_of, args), **values)

        return Later(make)


def value_of(value):
    """Returns a value, which may still have to be made."""
    return value._value if isinstance(value, Later) else value


_functions: list[FunctionType] = []


def needs(function: FunctionType) -> None:
    """Has :func:`settle` replace what a function names."""
    _functions.append(function)


def settle() -> None:
    """Imports Numba, and replaces what waits for it in the functions' modules."""
    while _functions:
        function = _functions[0]
        names = function.__globals__
        names.update({k: v._value for k, v in names.items() if isinstance(v, Later)})
        for cell in function.__closure__ or ():
            cell.cell_contents = value_of(cell.cell_contents)
        _functions.remove(function)


carray = Later(lambda: import_module("numba").carray)
cgutils = Later(lambda: import_module("numba.core.cgutils"))
ir = Later(lambda: import_module("llvmlite.ir"))
types = Later(lambda: import_module("numba.core.types"))


def intrinsic(function: FunctionType) -> Later:
    """As ``numba.extending.intrinsic``."""
    needs(function)
    return Later(lambda: import_module("numba.extending").intrinsic(function))
