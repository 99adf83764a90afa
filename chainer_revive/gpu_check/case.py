"""The computations that check a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np


class Precision(NamedTuple):
    """A precision of a check, and the deviation that is allowed in it.

    Attributes:
        name: As it is printed.
        dtype: Of the arrays.
        allowed: The largest deviation, as a share of the largest element.
        tensor_cores: ``chainer.config.use_cudnn_tensor_core``.
    """

    name: str
    dtype: type
    allowed: float
    tensor_cores: str = "auto"


STRICT = Precision("float32", np.float32, 5e-5, "never")
TF32 = Precision("TF32", np.float32, 5e-3)
SINGLE = Precision("float32", np.float32, 1e-4)
HALF = Precision("float16", np.float16, 1e-2)


class Case(NamedTuple):
    """One call of a function.

    Attributes:
        name: What is particular about it.
        inputs: float64 arrays with numbers that the precisions have too, or integers.
        compute: Called with copies of the arrays, on some device and in some float
            dtype; returns a sequence of arrays.
        precisions: In what it is computed.
    """

    name: str
    inputs: tuple
    compute: Callable[..., Iterable[Any]]
    precisions: tuple[Precision, ...] = (SINGLE, HALF)


class Unit(NamedTuple):
    """A function that is used or left off as a whole.

    Attributes:
        name: As in :func:`chainer_revive.registry.named`.
        what: In words.
        cases: Returns what is computed.
        layer: The layer that has it; ``None`` for one that needs all that have passed.
        captures: Whether it captures CUDA graphs, and so is used by itself only.
    """

    name: str
    what: str
    cases: Callable[[], Iterable[Case]]
    layer: str | None
    captures: bool = False


def numbers(
    *shapes: tuple[int, ...], low: float = -1.0, seed: int = 0, fit: type = np.float16
) -> list:
    """Returns float64 arrays of random numbers in (low, 1) that another dtype has."""
    random = np.random.RandomState(seed)
    return [
        random.uniform(low, 1, shape).astype(fit).astype(np.float64) for shape in shapes
    ]


def channels_last(x):
    """Returns a copy with the channels last in memory."""
    return x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
