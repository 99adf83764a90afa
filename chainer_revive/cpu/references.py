"""Whether anybody else refers to an array; if not, it may be computed in place."""

from __future__ import annotations

import sys

import numpy as np
from chainer import Variable

from chainer_revive.cpu.layout import channels_first, is_channels_last


def is_only_holder_of_variable(holder: tuple[Variable, ...]) -> bool:
    """Tells whether nobody but a tuple has its first variable, of images, or its array.

    Args:
        holder (tuple of Variable): The tuple. The caller has no other reference to the
            variable, nor to its array.
    """
    if type(holder[0]._data[0]) is not np.ndarray:
        return False
    if _references_to_variable(holder) not in _VARIABLE_ALONE:
        return False
    array = holder[0]._data[0]
    owner = array if array.base is None else array.base
    return (
        type(owner) is np.ndarray
        and owner.flags.owndata
        and array.flags.writeable
        and is_channels_last(array)
    )


def is_only_holder_of_array(holder: list) -> bool:
    """Tells whether nobody but a list of one array has that array, or its memory.

    The array is a view of all that another one owns, as images of these functions are.
    """
    if not _owned(list.__getitem__(holder, 0)):
        return False
    return _references_to_array(holder) == _ARRAY_ALONE


def _owned(array: np.ndarray) -> bool:
    base = array.base
    return type(base) is np.ndarray and base.flags.owndata and array.flags.writeable


def _references_to_array(holder: list) -> tuple[int, int]:
    """Counts references to an array, and to the one that owns its memory."""
    return (
        sys.getrefcount(list.__getitem__(holder, 0)),
        sys.getrefcount(list.__getitem__(holder, 0).base),
    )


def _references_to_variable(holder: tuple[Variable, ...]) -> list[int]:
    """Counts references to a variable, its list, its array and what owns its memory."""
    x = holder[0]
    array = x._data[0]
    counts = [sys.getrefcount(x), sys.getrefcount(x._data), sys.getrefcount(array)]
    if array.base is not None:
        counts.append(sys.getrefcount(array.base))
    return counts


# What is counted where nobody else has anything.
_IMAGES = (1, 1, 1, 1)
_VARIABLE_ALONE = [
    _references_to_variable((Variable(np.empty(_IMAGES)),)),
    _references_to_variable((Variable(channels_first(np.empty(_IMAGES))),)),
]
_ARRAY_ALONE = _references_to_array([np.empty((1, 1)).T])
