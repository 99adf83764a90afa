"""What a predictor returns in test mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import chainer
import numpy as np


def call(predictor: chainer.Link, x, *args, **kwargs):
    """Calls a predictor with its inputs, then with what else is given.

    Args:
        predictor (~chainer.Link): The network.
        x: Its input, or a tuple of all its inputs, or a dict of them by name.
        args, kwargs: Further arguments.
    """
    if isinstance(x, dict):
        return predictor(*args, **x, **kwargs)
    inputs = x if isinstance(x, tuple) else (x,)
    return predictor(*inputs, *args, **kwargs)


@contextlib.contextmanager
def in_test_mode() -> Iterator[None]:
    """Switches Chainer to test mode, without graphs."""
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        yield


def to_host(array) -> np.ndarray:
    """Returns an array or Variable of any device as a NumPy array."""
    return chainer.get_device("@numpy").send(chainer.as_array(array))


def labels_of(t) -> np.ndarray:
    """Returns class labels on the host.

    Args:
        t (array): Integers of shape (N,), or probabilities of shape (N, C), of which it
            takes the highest.

    Raises:
        TypeError: If the targets are neither.
    """
    t = to_host(t)
    if t.dtype.kind == "f" and t.ndim == 2:
        return t.argmax(axis=1)
    if t.dtype.kind != "i" or t.ndim != 1:
        raise TypeError(
            "one class a sample is needed, as an integer or as probabilities of all, "
            f"but the targets are of dtype {t.dtype} and shape {t.shape}"
        )
    return t


def predict(predictor: chainer.Link, x) -> np.ndarray:
    """Calls a predictor in test mode.

    Args:
        predictor (~chainer.Link): The network.
        x: Its input, an array of shape (N, ...), or a tuple of all its inputs, or a
            dict of them by name, on the device of the network.

    Returns:
        numpy.ndarray: The scores, of shape (N, C).
    """
    with in_test_mode():
        return to_host(call(predictor, x))
