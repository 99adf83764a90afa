"""The random generators that a computation may draw from."""

from __future__ import annotations

import gc
import random
from collections import deque
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import chainer
import numpy as np
from chainer.variable import VariableNode

from chainer_revive.cpu.graphs import RANDOM

# What holds no generator, or too much else.
_CLOSED = (
    *(ModuleType, CodeType, FrameType, np.ndarray, chainer.Variable, VariableNode),
    *(str, bytes, int, float, complex, type(None)),
)
_OF_LIBRARIES = {
    *("chainer", "chainermn", "chainer_mmix", "chainer_revive"),
    *("numpy", "cupy", "numba", "builtins", "abc"),
}
_MANY = 100_000  # objects


def generators_of(roots: Iterable[Any]) -> list[Any]:
    """Returns both global generators, and those that objects reach.

    Args:
        roots (iterable): The objects. What they hold is looked at, and so are the
            classes, functions and global variables that users' functions name in them.
    """
    found: list[Any] = [np.random.mtrand._rand, random._inst]
    seen: dict[int, Any] = {}
    queue = deque(roots)
    while queue and len(seen) < _MANY:
        one = queue.popleft()
        if id(one) in seen or isinstance(one, _CLOSED):
            continue
        seen[id(one)] = one
        if isinstance(one, RANDOM):
            found.append(one)
        elif isinstance(one, (type, FunctionType)):
            if one.__module__ and one.__module__.split(".")[0] in _OF_LIBRARIES:
                continue
            if isinstance(one, type):
                queue += [*vars(one).values(), *one.__bases__]
            else:
                held = one.__closure__, one.__defaults__, one.__kwdefaults__
                queue += [*held, vars(one), *_named(one)]
        else:
            queue += [type(one), *gc.get_referents(one)]
    return [*{id(one): one for one in found}.values()]


def _named(function: FunctionType) -> Iterator[Any]:
    """Yields the global variables that a function names, and those of modules."""
    names = _names(function.__code__)
    places, seen = [function.__globals__], set()
    for place in places:
        for name in names & place.keys():
            value = place[name]
            if not isinstance(value, ModuleType):
                yield value
            elif id(value) not in seen:
                seen.add(id(value))
                places.append(vars(value))


def _names(code: CodeType) -> set[str]:
    inner = [_names(const) for const in code.co_consts if isinstance(const, CodeType)]
    return {*code.co_names}.union(*inner)
