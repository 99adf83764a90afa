"""``log``: what Chainer's ``LogReport`` has written."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chainer_mmix.runs.files import RunError, read_json
from chainer_revive.atomic import write_atomically

FILENAME = "log"
_LARGEST = 1e150  # whose square is a number
_REMEDY = "compare logs that Chainer's LogReport has written"


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Reads the log of a run.

    Args:
        folder (pathlib.Path): The run's folder.

    Returns:
        list of dict: Its entries, each with a finite ``epoch``.

    Raises:
        RunError: If it is missing, empty or damaged.
    """
    path = folder / FILENAME
    log = read_json(path, "copy the run's log again or train anew")
    if not isinstance(log, list) or not all(isinstance(entry, dict) for entry in log):
        raise RunError(f"{path} is not a list of entries: {_REMEDY}")
    if not log:
        raise RunError(f"{path} has no entries: let the run finish its first epoch")
    if not any("epoch" in entry for entry in log):
        keys = ", ".join(sorted({key for entry in log for key in entry}))
        raise RunError(f"{path} has no key 'epoch', only {keys}: {_REMEDY}")
    for entry in log:
        epoch = entry.get("epoch")
        if not _is_number(epoch) or not math.isfinite(epoch):
            raise RunError(
                f"{path} has an entry without a number as 'epoch': {_REMEDY}"
            )
        _check_size(epoch, "epoch", path)
    return log


def write_log(folder: str | Path, log: Sequence[dict[str, Any]]) -> None:
    """Writes a log as ``LogReport`` does.

    Args:
        folder (str or path-like): The run's folder.
        log (sequence of dict): The entries.
    """
    with write_atomically(Path(folder, FILENAME)) as file:
        json.dump(log, file, indent=4)


def number_keys(log: Sequence[dict[str, Any]]) -> list[str]:
    """Lists the keys of a log whose values are all numbers, sorted.

    JSON's ``null`` counts as one.
    """
    found: dict[str, bool] = {}
    for entry in log:
        for key, value in entry.items():
            is_number = value is None or _is_number(value)
            found[key] = found.get(key, True) and is_number
    return sorted(key for key in found if found[key])


def series(
    log: Sequence[dict[str, Any]], key: str, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what a log tells about a key.

    Args:
        log (sequence of dict): Its entries.
        key (str): The key, such as ``"validation/main/loss"``.
        path (pathlib.Path): The file, for the error.

    Returns:
        tuple of numpy.ndarray: The epochs and the values, each a float64 array with
        one element for each entry that has the key. JSON's ``null`` reads as NaN.

    Raises:
        RunError: If a value is not a number.
    """
    entries = [entry for entry in log if key in entry]
    values = [math.nan if e[key] is None else e[key] for e in entries]
    for value in values:
        if not _is_number(value):
            raise RunError(
                f"{path} has {value!r} where {key!r} should be a number: {_REMEDY}"
            )
        _check_size(value, key, path)
    epochs = [entry["epoch"] for entry in entries]
    return np.array(epochs, np.float64), np.array(values, np.float64)


def _check_size(value: float, key: str, path: Path) -> None:
    if _LARGEST < abs(value) < math.inf:
        raise RunError(
            f"{path} has {value:.3g} as {key!r}, too large to compute with: {_REMEDY}"
        )


def _is_number(value: Any) -> bool:
    is_float = isinstance(value, float)
    return is_float or (isinstance(value, int) and abs(value) <= sys.float_info.max)
