from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from chainer_mmix.cli.options import CHANGES, OPTIONS
from chainer_mmix.runs.record import read_record
from chainer_mmix.training import find_snapshot


def newest_snapshot(resume: str | bool, out: str) -> str:
    """Finds the snapshot that ``--resume`` means.

    Args:
        resume (str or bool): A snapshot, a folder, or ``True`` for the output folder.
        out (str): The output folder.

    Raises:
        ValueError: If there is none in the folder.
    """
    folder = out if resume is True else str(resume)
    if resume is not True and not os.path.isdir(folder):
        return folder
    snapshot = find_snapshot(folder)
    if snapshot is None:
        raise ValueError(
            f"there is no snapshot to resume from in {folder}: name one with "
            "--resume SNAPSHOT, or the folder with --out"
        )
    return str(snapshot)


def check_same_run(
    snapshot: str, arguments: Mapping[str, Any], fixed: Collection[str] = ()
) -> None:
    """Checks that arguments are those of the run that a snapshot belongs to.

    How long and how fast it trains may change, what it trains may not. Without a
    ``run.json`` beside the snapshot there is nothing to compare with.

    Args:
        snapshot (str): The snapshot.
        arguments (mapping): The arguments of the run that is to go on from it.
        fixed (collection of str): Arguments that may not change either in this run.

    Raises:
        ValueError: If they differ, with each difference, or if ``run.json`` is damaged.
    """
    before = read_record(Path(snapshot).parent).get("arguments", {})
    differences = [
        f"{OPTIONS[name].flag} was {before[name]} and is {value}"
        for name, value in arguments.items()
        if name in before and before[name] != value
        if name in fixed or CHANGES not in OPTIONS[name].tags
    ]
    if differences:
        raise ValueError(
            f"{snapshot} is the snapshot of another model or setting "
            f"({'; '.join(differences)}): resume with the arguments of that run"
        )


def check_same_data(snapshot: str, data: Mapping[str, Any]) -> None:
    """Checks that there is as much to train on as the run had that is resumed.

    Args:
        snapshot (str): The snapshot.
        data (mapping): What ``run.json`` is to say of the data.

    Raises:
        ValueError: If files or classes have come or gone.
    """
    before = read_record(Path(snapshot).parent).get("data", {})
    differences = [
        f"{name} was {before[name]} and is {value}"
        for name, value in data.items()
        if before.get(name, value) != value
    ]
    if differences:
        raise ValueError(
            f"the data are not those of {snapshot} ({'; '.join(differences)}): put "
            "them back, or train anew"
        )
