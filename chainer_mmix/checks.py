"""Checks of numbers that a program passes, before they do anything."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np


def check_whole(name: str, value: Any, least: int) -> None:
    """Raises a ValueError unless a value is a whole number, at least the least one."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (is_whole and value >= least):
        raise ValueError(f"{name} must be a whole number >= {least}, not {value!r}")


def check_number(
    name: str, value: Any, least: float = 0, exclusive: bool = False
) -> None:
    """Raises a ValueError unless a value is a finite number, at least the least one.

    Args:
        name (str): What the error calls it.
        value: The value.
        least (float): The least number.
        exclusive (bool): Whether it must be larger than that. The default is ``False``.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    is_finite = is_number and math.isfinite(value)
    if not (is_finite and (value > least if exclusive else value >= least)):
        sign = ">" if exclusive else ">="
        raise ValueError(
            f"{name} must be a finite number {sign} {least}, not {value!r}"
        )


def check_share(name: str, value: Any) -> None:
    """Raises a ValueError unless a value is a number from 0 to 1."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (is_number and 0 <= float(value) <= 1):
        raise ValueError(f"{name} must lie in [0, 1], not {value!r}")


def check_bool(name: str, value: Any) -> None:
    """Raises a TypeError unless a value is ``True`` or ``False``."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, not {value!r}")
