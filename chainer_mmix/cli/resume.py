from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from chainer_mmix.cli import recipes
from chainer_mmix.cli.options import CHANGES, MIXING, OPTIONS, SETTING, options_with
from chainer_mmix.runs import record as records
from chainer_mmix.runs.record import read_record
from chainer_mmix.training import SnapshotError, find_good_snapshot

# What a resumed run does not take from the record.
_OWN = ("resume", "out", "gpu", "gpus", "communicator", "quiet")


def parse(
    parser: argparse.ArgumentParser,
    words: Sequence[str],
    find_out: Callable[[argparse.Namespace], str],
) -> argparse.Namespace:
    """Parses a command line; a resumed run takes the rest from its record.

    Args:
        parser (argparse.ArgumentParser): The parser.
        words (sequence of str): The command line.
        find_out (callable): Returns the output folder that arguments mean.

    Raises:
        ValueError: If what is given is not what the run trains, or if the record is
            damaged.
    """
    args = recipes.parse(parser, words)
    if not args.resume:
        return args
    names_out = args.resume in (True, "auto")
    is_folder = not names_out and os.path.isdir(args.resume)
    if names_out:
        folder = find_out(args)
    elif is_folder:
        folder = args.resume
    else:
        folder = os.path.dirname(args.resume) or "."
    given = recipes.given_by(parser, words)
    check_same_run(folder, given)
    before = record_of(folder).get("arguments", {})
    if "gpu" in given or "device" in given:
        before = {k: v for k, v in before.items() if k not in ("device", "graph")}
    if before:  # which says what the recipe did
        args = parser.parse_args([*_words(before), *words])
    if args.out is None and (before or is_folder):
        args.out = folder
    return args


def record_of(folder: str) -> dict[str, Any]:
    """Reads the record of a run that is to go on; nothing if there is none.

    Raises:
        RunError: If it is damaged.
    """
    remedy = "repair it, or remove it and give --model and the run's other options"
    return read_record(Path(folder), remedy)


def _words(arguments: Mapping[str, Any]) -> list[str]:
    """Writes recorded arguments as one would type them."""
    words = []
    for name, value in arguments.items():
        if name not in OPTIONS or name in _OWN or value is None or value is False:
            continue
        flag = OPTIONS[name].flag
        if value is True:
            words.append(flag)
        elif not isinstance(value, list):
            words.append(f"{flag}={value}")
        elif value and all(isinstance(item, (int, float)) for item in value):
            words += [flag, *map(str, value)]
    return words


def newest_snapshot(
    resume: str | bool, out: str
) -> tuple[str | None, Sequence[SnapshotError]]:
    """Finds the snapshot that ``--resume`` means.

    Args:
        resume (str or bool): A snapshot, a folder, ``"auto"``, or ``True`` for the
            output folder.
        out (str): The output folder.

    Returns:
        tuple: The snapshot, the newest good one in a folder, or ``None`` if the run is
        to begin, since it has not saved any yet; and what is wrong with newer ones.

    Raises:
        ValueError: If there is none.
    """
    folder = out if resume in (True, "auto") else str(resume)
    if folder == resume and not os.path.isdir(folder):
        if not os.path.exists(folder):
            raise ValueError(f"there is no snapshot {folder}: name one that is there")
        return folder, []
    snapshot, flaws = find_good_snapshot(folder)
    if snapshot is None and flaws:
        raise ValueError(f"none of the snapshots in {folder} is good: {flaws[0]}")
    if snapshot is not None:
        return str(snapshot), flaws
    if resume == "auto" or os.path.exists(os.path.join(folder, records.FILENAME)):
        return None, []
    raise ValueError(
        f"there is no snapshot to resume from in {folder}: name one with "
        "--resume SNAPSHOT, or the folder with --out"
    )


def check_same_run(
    folder: str, arguments: Mapping[str, Any], fixed: Collection[str] = ()
) -> None:
    """Checks that arguments are those of the run in a folder.

    How long and how fast it trains may change, what it trains may not. Without a
    ``run.json`` in the folder there is nothing to compare with.

    Args:
        folder (str): The folder.
        arguments (mapping): The arguments of the run that is to go on.
        fixed (collection of str): Arguments that may not change either in this run.

    Raises:
        ValueError: If they differ, with each difference, or if ``run.json`` is damaged.
    """
    before = record_of(folder).get("arguments", {})
    # An older record lacks newer settings.
    newer = (
        {o.name: o.default for o in options_with(SETTING | MIXING)} if before else {}
    )
    before = {**newer, **before}
    differences = [
        f"{OPTIONS[name].flag} was {before[name]} and is {value}"
        for name, value in arguments.items()
        if name in before and before[name] != value
        if name in fixed or CHANGES not in OPTIONS[name].tags
    ]
    if differences:
        raise ValueError(
            f"{folder} holds a run of another model or setting "
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
    before = record_of(os.path.dirname(snapshot)).get("data", {})
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
