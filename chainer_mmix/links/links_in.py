"""Links that other objects hold."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterator

import chainer


def links_in(value, seen: set[int] | None = None) -> Iterator[chainer.Link]:
    """Yields the links in containers, partial functions, methods and functions."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, chainer.Link):
        yield value
        return
    if isinstance(value, dict):
        value = tuple(value.values())
    elif isinstance(value, functools.partial):
        value = value.func, value.args, value.keywords
    elif callable(value):
        function = getattr(value, "__func__", value)
        cells = getattr(function, "__closure__", None) or ()
        value = getattr(value, "__self__", None), *cells, *_named_in(function)
    elif isinstance(value, types.CellType):
        with contextlib.suppress(ValueError):  # an empty one
            yield from links_in(value.cell_contents, seen)
    # A long list is data.
    if isinstance(value, (list, tuple, set)) and len(value) <= 100:
        for item in value:
            yield from links_in(item, seen)


def _named_in(function) -> Iterator[chainer.Link]:
    """Yields the links among the global variables that a function names."""
    for name in getattr(getattr(function, "__code__", None), "co_names", ()):
        value = getattr(function, "__globals__", {}).get(name)
        if isinstance(value, chainer.Link):
            yield value
