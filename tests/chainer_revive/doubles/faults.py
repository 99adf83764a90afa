"""Faults to be planted in functions for a GPU."""

import importlib

import numpy as np

from chainer_revive import registry


def wrong(array):
    """Returns a copy of which one element is off by some percent of the largest."""
    array = np.array(array, order="C")
    if array.size:
        array.reshape(-1)[array.size // 2] += 0.05 * (np.abs(array).max() or 1)
    return array


def plant(name, damage, put=setattr):
    """Damages the first array that a function returns.

    Args:
        name: Of the function, as in the registry.
        damage: Gets the array and returns another one.
        put: As ``setattr``.
    """
    layer, _, path = name.partition("/")
    module, _, function = path.partition(":")
    module = importlib.import_module(f"{registry.LAYERS[layer]}.{module}")
    original = getattr(module, function)

    def damaged(*args, **kwargs):
        result = original(*args, **kwargs)
        if result is NotImplemented:
            return result
        first, *rest = result if isinstance(result, tuple) else (result,)
        first = damage(first).astype(first.dtype)
        return (first, *rest) if isinstance(result, tuple) else first

    put(module, function, damaged)
