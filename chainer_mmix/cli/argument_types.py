"""Types for argparse whose errors say what is wanted."""

from __future__ import annotations

import argparse
import math
import os


def positive_int(text: str) -> int:
    return _number(text, int, lambda n: n >= 1, "a whole number >= 1")


def natural(text: str) -> int:
    return _number(text, int, lambda n: n >= 0, "a whole number >= 0")


def point(text: str) -> int:
    return _number(text, int, lambda n: True, "whole numbers with spaces, as in 0 1")


def gpu(text: str) -> int:
    return _number(text, int, lambda n: True, "a whole number, negative for the CPU")


def seed(text: str) -> int:
    wanted = "a whole number in [0, 4294967295]"
    return _number(text, int, lambda n: 0 <= n < 2**32, wanted)


def positive(text: str) -> float:
    return _number(text, float, lambda x: 0 < x < math.inf, "a finite number > 0")


def not_negative(text: str) -> float:
    return _number(text, float, lambda x: 0 <= x < math.inf, "a finite number >= 0")


def at_least_one(text: str) -> float:
    return _number(text, float, lambda x: 1 <= x < math.inf, "a finite number >= 1")


def share(text: str) -> float:
    return _number(text, float, lambda x: 0 <= x <= 1, "in [0, 1]")


def part(text: str) -> float:
    return _number(text, float, lambda x: 0 < x < 1, "above 0 and below 1")


def gpus(text: str) -> str:
    """Checks a list of numbers with commas, such as ``0,1``."""
    gpu_numbers(text)
    return text


def gpu_numbers(text: str) -> list[int]:
    """Returns the numbers."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            "must be numbers of GPUs with commas, such as 0,1,2,3, not "
            f"{text or 'nothing'}"
        ) from None


def path(text: str) -> str:
    """Makes a path absolute, so that a run may be resumed from another folder."""
    return os.path.abspath(os.path.expanduser(text))


def dataset(text: str) -> str:
    """Makes the path in ``folder:PATH`` or ``npz:FILE`` absolute."""
    kind, colon, name = text.partition(":")
    if colon and not name:
        raise argparse.ArgumentTypeError(
            f"must be a name, folder:PATH or npz:FILE, not {text}"
        )
    return f"{kind}:{path(name)}" if name else text


def every(text: str) -> str:
    """Checks a number of iterations, or of minutes (``30min``)."""
    parse_every(text)
    return text


def parse_every(text: str) -> tuple[float, str]:
    """Returns the number and ``"iterations"`` or ``"minutes"``."""
    if text.endswith("min"):
        wanted = "a number of minutes > 0, such as 30min"
        number = text.removesuffix("min")
        minutes = _number(number, float, lambda x: 0 < x < math.inf, wanted)
        return minutes, "minutes"
    wanted = "a whole number >= 1 of iterations, or of minutes, such as 30min"
    return _number(text, int, lambda n: n >= 1, wanted), "iterations"


def _number(text: str, kind: type, is_good, wanted: str):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not is_good(value):
        raise argparse.ArgumentTypeError(f"must be {wanted}, not {text or 'nothing'}")
    return value
