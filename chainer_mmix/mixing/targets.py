"""Targets of a batch: their kinds, checks and conversions."""

from __future__ import annotations

import functools

import chainer
import numpy as np
from chainer import backend

from chainer_revive.cpu import steps


def soft_target(t, y, label_smoothing: float = 0.0):
    r"""Returns targets in the form of probabilities, of the shape and dtype of ``y``.

    Args:
        t (~chainer.Variable or array): Labels, an integer array of shape
            :math:`(N, d_1, ...)`, or a float array of the shape of ``y``.
        y (~chainer.Variable): Scores of shape :math:`(N, C, d_1, ...)`.
        label_smoothing (float): The share that is spread evenly over the classes.

    Returns:
        array: :math:`(1 - \epsilon)\,t + \epsilon / C`, with ``t`` as one-hot vectors.

    Raises:
        ValueError: If a label or a probability is out of range, or ``t`` is neither.
    """
    t = chainer.as_array(t)
    xp = backend.get_array_module(t)
    c = y.shape[1]
    if t.dtype.kind == "f" and t.shape == y.shape:
        check_probabilities(t)
        t = t.astype(y.dtype, copy=False)
    elif t.dtype.kind == "i" and t.shape == (len(y), *y.shape[2:]):
        check_range(t, c)
        t = xp.moveaxis(xp.eye(c, dtype=y.dtype)[t], -1, 1)
    else:
        raise ValueError(
            "targets must be labels of a signed integer dtype and shape "
            f"{(len(y), *y.shape[2:])}, or probabilities of shape {y.shape}, not "
            f"{t.dtype} of shape {t.shape}"
        )
    if label_smoothing:
        t = (1 - label_smoothing) * t + label_smoothing / c
    return t


def check_probabilities(t) -> None:
    """Checks targets; on a GPU, which would have to wait, in debug mode only."""
    if backend.get_array_module(t) is not np and not chainer.is_debug():
        return
    # Float16 rounds a sum of probabilities by as much as a thousandth.
    if not (t.min() >= -1e-3 and t.max() <= 1.001):  # NaN fails both
        bad = t[~((t >= -1e-3) & (t <= 1.001))]
        raise ValueError(
            "targets of a float dtype must be probabilities in [0, 1]; found "
            f"{bad[0]}: for numbers to predict, pass a lossfun such as "
            "mean_squared_error"
        )


def check_range(t, n_class: int, ignore_label: int | None = None) -> None:
    """Checks labels; on a GPU, which would have to wait, in debug mode only.

    Raises:
        ValueError: If one is outside [0, n_class) and is not ``ignore_label``.
    """
    is_numpy = type(t) is np.ndarray or backend.get_array_module(t) is np
    if not (is_numpy or chainer.is_debug()):
        return
    # As unsigned numbers, negative ones are too large.
    if not np.count_nonzero(t.view(_unsigned(t.dtype)) >= n_class):
        return
    bad = (t < 0) | (t >= n_class)
    other = ""
    if ignore_label is not None:
        bad &= t != ignore_label
        other = f", or be ignore_label={ignore_label}"
    if bad.any():
        raise ValueError(
            f"labels must lie in [0, {n_class}), the number of outputs of the "
            f"predictor{other}; found {t[bad][0]}"
        )


@functools.cache
def _unsigned(dtype: np.dtype) -> np.dtype:
    return np.dtype(dtype.str.replace("i", "u"))


def check_multi_label(t, shape: tuple[int, ...]) -> None:
    """Checks 0, 1 and -1, or probabilities, of several labels a sample.

    On a GPU, which would have to wait, values are checked in debug mode only.

    Raises:
        ValueError: If they are of another shape or out of range.
    """
    is_label = t.dtype.kind == "i"
    wanted = "0, 1, or -1 to be ignored" if is_label else "probabilities in [0, 1]"
    if t.shape != shape or t.dtype.kind not in "if":
        raise ValueError(
            f"targets of several labels a sample must be {wanted}, of the shape of the "
            f"prediction, {shape}, not {t.dtype} of shape {t.shape}"
        )
    if backend.get_array_module(t) is not np and not chainer.is_debug():
        return
    bad = ~((t >= (-1 if is_label else 0)) & (t <= 1))  # NaN fails both
    if bad.any():
        raise ValueError(
            f"targets of several labels a sample must be {wanted}; found {t[bad][0]}"
        )


class RowsError(ValueError):
    """There are not as many rows of a state as targets."""


class NoAccuracyError(TypeError):
    """Targets are neither class labels nor probabilities of classes."""


def to_labels(t, y):
    """Returns labels as they are, and the most probable ones of probabilities.

    Raises:
        NoAccuracyError: If ``t`` is neither.
    """
    t = chainer.as_array(t)
    is_label = t.dtype.kind != "f"
    if is_label and t.ndim < y.ndim:
        return t
    if is_label or t.shape != y.shape or y.shape[1] == 1:
        raise NoAccuracyError(
            f"there is no accuracy for targets of dtype {t.dtype} and shape {t.shape}: "
            "pass accfun=chainer.functions.binary_accuracy for several labels a "
            "sample, and accfun=None and a lossfun such as mean_squared_error for "
            "numbers to predict"
        )
    if type(t) is not np.ndarray:
        return t.argmax(axis=1)
    labels = np.empty((len(t), *t.shape[2:]), np.int64)
    steps.do(_most_probable, t, labels)
    return labels


def _most_probable(t, labels) -> None:
    labels[...] = t.argmax(axis=1)
