"""Reads the folders that training runs leave."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

VALIDATION_ACCURACY = "validation/main/accuracy"
VALIDATION_LOSS = "validation/main/loss"
TRAINING_LOSS = "main/loss"
_NO_LOG = (
    "{} has no file 'log', and neither has a folder in it: name the folder of a run "
    "that has finished an epoch with LogReport"
)


class RunError(ValueError):
    """A run folder cannot be read; the message names the path and a remedy."""


@dataclass(frozen=True, eq=False)
class Run:
    """One training run: its folder, its log and, if recorded, its settings.

    Attributes:
        path (pathlib.Path): The folder, as it was given.
        log (list of dict): The entries of Chainer's
            :class:`~chainer.training.extensions.LogReport`.
        record (dict): The content of ``run.json``; empty when there is none.
    """

    path: Path
    log: list[dict[str, Any]]
    record: dict[str, Any]

    @property
    def arguments(self) -> dict[str, Any] | None:
        """The options of the command line, ``None`` when none are recorded."""
        return self.record.get("arguments")

    @property
    def seed(self) -> int | None:
        """The seed, ``None`` when it is not recorded."""
        seed = self.record.get("seed")
        return (self.arguments or {}).get("seed") if seed is None else seed

    @property
    def epochs(self) -> int:
        """The number of epochs done."""
        return int(self.series("epoch")[1][-1])

    @property
    def time(self) -> float | None:
        """Seconds of training, ``None`` when neither log nor record tells them.

        The log comes first: its time goes on counting when a run is resumed.
        """
        times = self.series("elapsed_time")[1]
        if len(times):
            return float(times[-1])
        duration = self.record.get("duration")
        return float(duration) if isinstance(duration, (int, float)) else None

    def series(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns what the log tells about a key.

        Args:
            key (str): A key of the log, such as ``'validation/main/loss'``.

        Returns:
            tuple of numpy.ndarray: The epochs and the values, each a float64
            array with one element for each entry of the log that has the key.
            JSON's ``null`` reads as NaN.

        Raises:
            RunError: If a value is not a number.
        """
        entries = [entry for entry in self.log if key in entry]
        epochs = [self._number(entry, "epoch") for entry in entries]
        values = [self._number(entry, key) for entry in entries]
        return np.array(epochs, np.float64), np.array(values, np.float64)

    def _number(self, entry: dict[str, Any], key: str) -> float:
        value = entry[key]
        if value is None:
            return float("nan")
        if not isinstance(value, (int, float)):
            raise RunError(
                f"{self.path / 'log'} has {value!r} where {key!r} should be a number: "
                "compare logs that Chainer's LogReport has written"
            )
        return float(value)


def find_runs(
    paths: Sequence[str | os.PathLike[str]],
) -> tuple[list[Path], list[Path]]:
    """Finds the run folders that are meant by some paths.

    A folder with a file ``log`` is a run. One without stands for those of its
    immediate subfolders that have one, in the order of their names.

    Args:
        paths (sequence of path): Folders.

    Returns:
        tuple: The run folders, and those that hold a ``run.json`` but no ``log``
        (runs that ended before their first entry) and are left out.

    Raises:
        RunError: If a path is not a folder, if there is no log, or if a run is
            named twice.
    """
    folders: list[Path] = []
    left_out: list[Path] = []
    for path in map(Path, paths):
        if path.is_file():
            raise RunError(
                f"{path} is a file: name the folder that holds the run's log"
            )
        if not path.is_dir():
            raise RunError(
                f"{path} does not exist: name the folder of a run (its --out)"
            )
        if (path / "log").is_file():
            folders.append(path)
            continue
        children = sorted(child for child in path.iterdir() if child.is_dir())
        runs = [child for child in children if (child / "log").is_file()]
        others = [folder for folder in (path, *children) if folder not in runs]
        without_log = [f for f in others if (f / "run.json").is_file()]
        if not runs and not (without_log and len(paths) > 1):
            raise RunError(_NO_LOG.format(path))
        folders += runs
        left_out += without_log
    if not folders:
        raise RunError(_NO_LOG.format(paths[0]))
    seen: dict[Path, Path] = {}
    for folder in folders:
        first = seen.setdefault(folder.resolve(), folder)
        if first is not folder:
            raise RunError(
                f"{folder} is given twice (before as {first}): name each run once"
            )
    return folders, left_out


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Reads one run.

    Args:
        folder (path): A folder with Chainer's ``log`` and, optionally, the
            ``run.json`` of ``train_manifoldmixup.py``.

    Returns:
        Run: The run.

    Raises:
        RunError: If the log is missing, empty, damaged, or has no validation
            accuracy.
    """
    path = Path(folder)
    log = read_json(path / "log", "copy the run's log again or train anew")
    if not isinstance(log, list) or not all(isinstance(entry, dict) for entry in log):
        raise RunError(
            f"{path / 'log'} is not a list of entries: compare logs that Chainer's "
            "LogReport has written"
        )
    if not log:
        raise RunError(
            f"{path / 'log'} has no entries: let the run finish its first epoch"
        )
    keys = sorted({key for entry in log for key in entry})
    for key in ("epoch", VALIDATION_ACCURACY):
        if key not in keys:
            raise RunError(
                f"{path / 'log'} has no key {key!r}, only {', '.join(keys)}: train "
                "with an Evaluator and a model that reports its accuracy"
            )
    for entry in log:
        epoch = entry.get("epoch")
        if not isinstance(epoch, (int, float)) or not math.isfinite(epoch):
            raise RunError(
                f"{path / 'log'} has an entry without a number as 'epoch': compare "
                "logs that Chainer's LogReport has written"
            )
    return Run(path, log, _read_record(path / "run.json"))


def read_json(path: Path, remedy: str) -> Any:
    """Reads a JSON file.

    Args:
        path (pathlib.Path): The file.
        remedy (str): What to do when it is damaged, for the error.

    Raises:
        RunError: If it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as e:
        raise RunError(
            f"{path} cannot be read ({e.strerror}): check the path and its permissions"
        ) from e
    except (ValueError, RecursionError) as e:
        raise RunError(f"{path} is not valid JSON ({e}): {remedy}") from e


def _read_record(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    record = read_json(path, "repair it, or remove it to go by the folder's name")
    if not isinstance(record, dict) or not isinstance(
        record.get("arguments", {}), dict
    ):
        raise RunError(
            f"{path} is not the record of a run (a dict with a dict 'arguments'): "
            "repair it, or remove it to go by the folder's name"
        )
    return record
