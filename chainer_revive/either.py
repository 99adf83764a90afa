from __future__ import annotations

import functools
import inspect
from collections.abc import Callable


def either(fast: Callable, original: Callable) -> Callable:
    """Returns a function that calls ``original`` for what ``fast`` does not cover.

    Args:
        fast (callable): Returns ``NotImplemented`` for what it does not cover.
        original (callable): Takes the same arguments.
    """
    return functools.wraps(original)(_maker(_arguments(original))(fast, original))


def _arguments(function: Callable) -> str:
    """Returns by what name it takes each argument, if all of them have to be given."""
    parameters = inspect.signature(function).parameters.values()
    usual = inspect.Parameter.POSITIONAL_OR_KEYWORD
    if any(p.kind is not usual or p.default is not p.empty for p in parameters):
        return "*args, **kwargs"
    return ", ".join(p.name for p in parameters)  # the call takes half the time


@functools.cache
def _maker(arguments: str) -> Callable[[Callable, Callable], Callable]:
    scope: dict[str, Callable] = {}
    exec(_SOURCE.format(arguments), scope)
    return scope["make"]


_SOURCE = """
def make(_fast, _original):
    def call({0}):
        _result = _fast({0})
        return _original({0}) if _result is NotImplemented else _result

    return call
"""
