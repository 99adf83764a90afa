"""Calls of a network on the side, which leave no trace in its training."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Hashable, Iterator

import chainer
import numpy as np
from chainer import initializers


@contextlib.contextmanager
def isolated(
    link: chainer.Link, places: dict[Hashable, np.ndarray] | None = None
) -> Iterator[None]:
    """Undoes what the ``with`` block changes in a link and its children.

    In the block, they work on copies of all that they hold except their parameters:
    hidden states, statistics, counters. What Python cannot copy is shared. The block
    begins with fresh states: :meth:`reset_state` of each child that has one is called,
    as :class:`chainer.links.LSTM` does.

    Parameters are shared, since evaluation does not change them. One without a shape
    yet is initialised by the block as by any other call.

    Args:
        link (~chainer.Link): The link.
        places (dict): Where the copies of persistent arrays lie, so that the next block
            that is given this dictionary has them in the same places. By default, they
            lie anywhere.
    """
    links = list(link.links())
    memo = {id(kept): kept for kept in (*links, *link.params())}
    if places is not None:
        memo.update(_copies_in(places, links))
    before = [one.__dict__ for one in links]
    copies = [{k: _copy(v, memo) for k, v in own.items()} for own in before]
    try:
        for one, own in zip(links, copies, strict=True):
            one.__dict__ = own
        for one in links:
            if _has_state(one):
                one.reset_state()
        yield
    finally:
        for one, own in zip(links, before, strict=True):
            one.__dict__ = own


@contextlib.contextmanager
def isolated_with_weights(link: chainer.Link) -> Iterator[None]:
    """Like :func:`isolated`, but with zeros for parameters that have no shape yet.

    Thus nothing is drawn from a random generator, and they remain without a shape.
    """
    with isolated(link):
        for one in link.links():
            for name in one._params:
                param = one.__dict__[name]
                if not param.is_initialized:
                    dtype = getattr(param.initializer, "dtype", None)
                    zeros = chainer.Parameter(initializers.Constant(0, dtype))
                    zeros.to_device(param.device)
                    one.__dict__[name] = zeros
        yield


def _has_state(link: chainer.Link) -> bool:
    """Tells whether a link has a state that can be reset, as an LSTM has."""
    reset = getattr(link, "reset_state", None)
    if reset is None:
        return False
    try:
        inspect.signature(reset).bind()
    except (TypeError, ValueError):
        return False
    return True


def _copies_in(
    places: dict[Hashable, np.ndarray], links: list[chainer.Link]
) -> dict[int, np.ndarray]:
    """Returns copies of persistent arrays, by the ``id`` of these."""
    copies = {}
    for link in links:
        for name in link._persistent:
            array = link.__dict__.get(name)
            if type(array) is not np.ndarray:
                continue
            key = id(link), name, array.shape, array.dtype
            if key not in places:
                places[key] = np.empty_like(array)
            places[key][...] = array
            copies[id(array)] = places[key]
    return copies


def _copy(value, memo: dict):
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # locks, files, communicators: each raises what it likes
        return value
