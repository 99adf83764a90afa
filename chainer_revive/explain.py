"""Explains why calls ran through Chainer's own code."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from chainer_revive import registry

_lock = threading.Lock()
_last = threading.local()
_noting = contextlib.ExitStack()  # closed when nobody asks


class Fallback(NamedTuple):
    """A call that a fast function did not cover.

    Attributes:
        method: Chainer's method that ran instead, such as ``ReLU.forward_cpu``.
        layer: The layer that did not cover the call, such as ``cpu``.
        arrays: The dtypes and shapes of its arrays.
        reason: The reason.
    """

    method: str
    layer: str
    arrays: str
    reason: str


class Explanation:
    """The findings of :func:`explaining`; ``str`` writes one line for each.

    Attributes:
        fallbacks: How often each :class:`Fallback` occurred.
        products: How often compiled loops computed a convolution or matrix product with
            ``"Winograd"`` and with ``"direct sums"``; gradients count as well.
    """

    def __init__(self) -> None:
        self.fallbacks: Counter[Fallback] = Counter()
        self.products: Counter[str] = Counter()

    def __str__(self) -> str:
        if not any(map(registry.is_on, registry.LAYERS)):
            return "all runs through Chainer's own code: chainer_revive is switched off"
        lines = [
            f"{count} x {f.method}({f.arrays}), not {f.layer}: {f.reason}"
            for f, count in self.fallbacks.most_common()
        ]
        return "\n".join(lines) or "nothing fell back to Chainer's own code"


_explanations: list[Explanation] = []  # those asked for, by whichever thread


def declined(reason: str | Callable[..., str], *arguments):
    """Returns ``NotImplemented``, by which a fast function leaves a call to others.

    Args:
        reason (str or callable): Why; called with the arguments if anybody asks.
    """
    if _explanations:
        _last.reason = reason if isinstance(reason, str) else reason(*arguments)
    return NotImplemented


def is_asked() -> bool:
    """Tells whether anybody asks what is computed by which way."""
    return bool(_explanations)


def count_products(way: str) -> None:
    """Notes by which way a convolution is computed."""
    for explanation in tuple(_explanations):
        explanation.products[way] += 1


@contextlib.contextmanager
def explaining() -> Iterator[Explanation]:
    """A context that records which calls fall back to Chainer's own code, and why.

    It applies to all threads of the process, and makes each call a little slower. ::

        with chainer_revive.explaining() as explanation:
            optimizer.update(model, x, t)
        print(explanation)

    Yields:
        Explanation: Filled as the calls are made.
    """
    import chainer  # noqa: F401  (whose methods are looked at)

    explanation = Explanation()
    with _lock:
        if not _explanations:
            _noting.enter_context(registry.put_together_by(_over))
        _explanations.append(explanation)
    try:
        yield explanation
    finally:
        with _lock:
            _explanations.remove(explanation)
            if not _explanations:
                _noting.close()


def _over(fast: Callable, below: Callable) -> Callable:
    layer = _layer_of(fast)

    @functools.wraps(below)
    def call(*args, **kwargs):
        _last.reason = "it gave no reason"
        result = fast(*args, **kwargs)
        if result is not NotImplemented:
            return result
        arrays = ", ".join(_describe([*args, *kwargs.values()]))
        fallback = Fallback(below.__qualname__, layer, arrays, _last.reason)
        for explanation in tuple(_explanations):
            explanation.fallbacks[fallback] += 1
        return below(*args, **kwargs)

    return call


def _layer_of(fast: Callable) -> str:
    for layer, package in registry.LAYERS.items():
        if fast.__module__.startswith(f"{package}."):
            return layer
    raise ValueError(f"{fast.__module__} is in no layer")


def _describe(arguments: list) -> Iterator[str]:
    for argument in arguments:
        if isinstance(argument, (tuple, list)):
            yield from _describe(list(argument))
        elif hasattr(argument, "dtype") and hasattr(argument, "shape"):
            yield f"{argument.dtype} {argument.shape}"
