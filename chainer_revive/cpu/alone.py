"""Arrays that nobody else has, so that what follows may be computed in place."""

from __future__ import annotations

import sys

import numpy as np
from chainer import Variable

from chainer_revive.cpu.layout import channels_first, is_channels_last


def is_alone(variables: tuple[Variable, ...], i: int) -> bool:
    """Tells whether nobody but this tuple has a variable of images, or their memory."""
    if type(variables[i]._data[0]) is not np.ndarray:
        return False
    if _references(variables, i) not in _ALONE:
        return False
    array = variables[i]._data[0]
    owner = array if array.base is None else array.base
    return (
        type(owner) is np.ndarray
        and owner.flags.owndata
        and array.flags.writeable
        and is_channels_last(array)
    )


def is_alone_in(holder: list) -> bool:
    """Tells whether only a list of one array refers to that, and that to its memory.

    The array is a view of all that another one owns, as images of these functions are.
    """
    if not _owned(list.__getitem__(holder, 0)):
        return False
    return _references_in(holder) == _ALONE_IN


def _owned(array: np.ndarray) -> bool:
    base = array.base
    return type(base) is np.ndarray and base.flags.owndata and array.flags.writeable


def _references_in(holder: list) -> tuple[int, int]:
    """Counts references to an array, and to the one that owns its memory."""
    return (
        sys.getrefcount(list.__getitem__(holder, 0)),
        sys.getrefcount(list.__getitem__(holder, 0).base),
    )


def _references(variables, i) -> list[int]:
    """Counts references to a variable, its list, its array and what owns its memory."""
    x = variables[i]
    array = x._data[0]
    counts = [sys.getrefcount(x), sys.getrefcount(x._data), sys.getrefcount(array)]
    if array.base is not None:
        counts.append(sys.getrefcount(array.base))
    return counts


_IMAGES = (1, 1, 1, 1)
_ALONE = [
    _references((Variable(np.empty(_IMAGES)),), 0),
    _references((Variable(channels_first(np.empty(_IMAGES))),), 0),
]
_ALONE_IN = _references_in([np.empty((1, 1)).T])
