from __future__ import annotations

import functools
from collections.abc import Callable


def either(fast: Callable, original: Callable) -> Callable:
    """Returns a function that calls ``original`` for what ``fast`` does not cover.

    Args:
        fast (callable): Returns ``NotImplemented`` for what it does not cover.
        original (callable): Takes the same arguments.
    """

    @functools.wraps(original)
    def call(*args, **kwargs):
        result = fast(*args, **kwargs)
        return original(*args, **kwargs) if result is NotImplemented else result

    return call
