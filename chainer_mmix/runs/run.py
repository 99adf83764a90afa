"""Reads the folders that training runs leave."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from chainer_mmix.runs import log as logs
from chainer_mmix.runs import record as records
from chainer_mmix.runs.files import RunError

_NO_LOG = (
    "{} has no file 'log', and neither has a folder in it: name the folder of a run "
    "that has finished an epoch with LogReport"
)


@dataclass(frozen=True, eq=False)
class Run:
    """One training run: its folder, its log and, if recorded, its setting.

    Attributes:
        path (pathlib.Path): The folder, as it was given.
        log (list of dict): The entries of Chainer's
            :class:`~chainer.training.extensions.LogReport`.
        record (dict): The content of ``run.json``; empty when there is none.
    """

    path: Path
    log: list[dict[str, Any]]
    record: dict[str, Any]

    @cached_property
    def setting(self) -> records.Setting | None:
        """The setting that it trained; ``None`` if it is not recorded."""
        return records.setting_of(self.record)

    @property
    def seed(self) -> int | None:
        """The seed, ``None`` when it is not recorded."""
        seed = self.record.get("seed")
        if seed is None:
            seed = self.record.get("arguments", {}).get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def data(self) -> dict[str, Any]:
        """The record of its data (:mod:`chainer_mmix.runs.record`)."""
        data = self.record.get("data")
        return data if isinstance(data, dict) else {}

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

    @cached_property
    def keys(self) -> list[str]:
        """The keys of the log whose values are numbers, sorted."""
        return logs.number_keys(self.log)

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
        return logs.series(self.log, key, self.path / logs.FILENAME)


def find_runs(
    paths: Sequence[str | os.PathLike[str]],
) -> tuple[list[Path], list[Path]]:
    """Finds the run folders that are meant by some paths.

    A folder with a file ``log`` is a run. One without stands for those of its
    immediate subfolders that have one, in the order of their names.

    Args:
        paths (sequence of path-like): Folders.

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
            raise RunError(f"{path} does not exist: name the output folder of a run")
        if _has_log(path):
            folders.append(path)
            continue
        children = sorted(child for child in path.iterdir() if child.is_dir())
        runs = [child for child in children if _has_log(child)]
        others = [folder for folder in (path, *children) if folder not in runs]
        without_log = [f for f in others if (f / records.FILENAME).is_file()]
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
            before = "" if str(folder) == str(first) else f" (before as {first})"
            raise RunError(f"{folder} is given twice{before}: name each run once")
    return folders, left_out


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Reads one run.

    Args:
        folder (path-like): A folder with Chainer's ``log`` and, optionally, the
            ``run.json`` of the training command.

    Returns:
        Run: The run.

    Raises:
        RunError: If log or record are damaged.
    """
    path = Path(folder)
    return Run(path, logs.read_log(path), records.read_record(path))


def _has_log(folder: Path) -> bool:
    return (folder / logs.FILENAME).is_file()
