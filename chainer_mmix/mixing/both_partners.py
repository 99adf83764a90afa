"""Calls a function with the targets of both partners, as if it were called once."""

from __future__ import annotations

import collections
import functools
import numbers
import types
import warnings
from collections.abc import Callable
from typing import Any

import chainer
import numpy as np
from chainer import reporter

from chainer_mmix.mixing.weights import Weights


def average_of_both(criterion: Callable, y, target_a, target_b, weights: Weights):
    r"""Returns :math:`\lambda f(y, t_a) + (1 - \lambda) f(y, t_b)`.

    What the function reports is weighted alike. If it keeps numbers in attributes (of
    itself, or of the object whose method it is), these change as by the call with the
    first partners' targets, and both calls begin with the same ones.
    """
    state = _State(criterion)
    before = state.copy()
    a, reported_a = _observed(criterion, y, target_a)
    after = state.copy()
    state.put_back(before)
    b, reported_b = _observed(criterion, y, target_b)
    state.put_back(after)
    if reported_a or reported_b:
        # Under names that are complete.
        chainer.report(_averages(reported_a, reported_b, weights, repr(criterion)))
    return weights.average(a, b, repr(criterion))


def _observed(criterion: Callable, y, target) -> tuple[Any, dict]:
    observation: dict = {}
    try:
        current = reporter.get_current_reporter()
    except IndexError:  # there is none
        return checked(criterion(y, target), criterion), observation
    with current.scope(observation):
        return checked(criterion(y, target), criterion), observation


def checked(value, criterion: Callable):
    """Returns what a criterion returned.

    Raises:
        TypeError: If it is neither an array nor a number, such as the tuple of
            :func:`chainer.functions.precision`.
    """
    if not (hasattr(value, "dtype") or isinstance(value, numbers.Number)):
        raise TypeError(
            f"{criterion!r} returned a {type(value).__name__}, but one value a batch "
            "or one a sample is needed: pass a function that returns the part that "
            "counts, such as the first, and reports the others by chainer.report"
        )
    return value


def _averages(a: dict, b: dict, weights: Weights, what: str) -> dict:
    result = {**b, **a}
    for name in a.keys() & b.keys():
        if not (hasattr(a[name], "dtype") or isinstance(a[name], numbers.Number)):
            continue
        try:
            result[name] = weights.average(a[name], b[name], what)
        except ValueError:
            if np.all(chainer.as_array(a[name]) == chainer.as_array(b[name])):
                continue  # whatever the weights
            del result[name]
            warnings.warn(
                f"{name}, which {what} reports, is left out in steps with one lambda a "
                "sample, since it is one value a batch: report one value a sample, or "
                "use per='batch'",
                stacklevel=2,
            )
    return result


class _State:
    """The numbers, arrays and containers among the attributes of a function."""

    def __init__(self, function: Callable) -> None:
        while isinstance(function, functools.partial):
            function = function.func
        owner = getattr(function, "__self__", function)
        self._spaces: list[dict] = []
        is_object = not isinstance(owner, (type, types.ModuleType))
        if is_object and hasattr(owner, "__dict__"):
            held = owner, *vars(owner).values()
            roots = (value for value in held if isinstance(value, chainer.Link))
            links = (link for root in roots for link in root.links())
            owners = {id(o): o for o in (owner, *links)}
            self._spaces = [vars(o) for o in owners.values()]

    def copy(self) -> list[dict]:
        """Returns copies of what may change."""
        return [
            {k: _copy(v) for k, v in space.items() if _may_change(k, v)}
            for space in self._spaces
        ]

    def put_back(self, saved: list[dict]) -> None:
        """Restores what has changed."""
        for space, values in zip(self._spaces, saved, strict=True):
            for key in [k for k, v in space.items() if _may_change(k, v)]:
                if key not in values:
                    del space[key]
            for key, value in values.items():
                space[key] = _put_back(space.get(key), value)


def _may_change(key: str, value) -> bool:
    # A link may make parameters in its first call; a loss does not move them.
    return not (
        isinstance(value, (chainer.Link, chainer.Parameter))
        or key in ("_params", "_persistent", "_children")
    )


def _copy(value):
    if isinstance(value, chainer.get_array_types()):
        return value.copy()
    if isinstance(value, (list, set, dict, collections.deque)):
        return value.copy()
    return value


def _put_back(present, saved):
    """Restores a value, within the object that others may refer to if it is one."""
    if present is saved or type(present) is not type(saved):
        return saved
    if isinstance(saved, chainer.get_array_types()):
        if present.shape == saved.shape and present.dtype == saved.dtype:
            present[...] = saved
            return present
    elif isinstance(saved, (list, collections.deque)):
        present.clear()
        present.extend(saved)
        return present
    elif isinstance(saved, (set, dict)):
        present.clear()
        present.update(saved)
        return present
    return saved
