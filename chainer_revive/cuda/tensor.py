"""A parameter as the kernels see it, and the launcher of the kernels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


@dataclasses.dataclass
class Tensor:
    """One parameter, of which all arrays have the strides of ``param``.

    The gradient used is ``clip * (grad + before * param) + after * param``, divided by
    ``loss_scale``.

    Attributes:
        param: float32 array that is updated.
        grad: float32 array, or a float16 one if ``half`` is there.
        states: float32 arrays that are updated.
        half: float16 array to round the parameter to, or ``None``.
        before, after: Rates of the weight decay before and after clipping.
        loss_scale: What the loss was multiplied by.
        rates: The hyperparameters, as the kernel of the rule takes them.
    """

    param: Any
    grad: Any
    states: tuple = ()
    half: Any = None
    before: float = 0.0
    after: float = 0.0
    loss_scale: float = 1.0
    rates: tuple[float, ...] = ()


class Launcher(Protocol):
    """Computes on all parameters at once, without waiting for the result."""

    array_type: type  # of the arrays that it takes

    def update(self, rule: str, tensors: Sequence[Tensor], clip) -> None:
        """Updates parameters and states by the rule of Chainer with this name."""

    def clip(self, tensors: Sequence[Tensor], threshold: float):
        """Returns the factor that brings the norm of all gradients to a threshold."""

    def finite(self, arrays: Sequence) -> np.ndarray:
        """Tells for each array, on the host, whether all its elements are finite."""

    def one_block(self, source: str, name: str, block: tuple, *args) -> None:
        """Runs a kernel in one block; its arguments are arrays and NumPy scalars."""
