from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from chainer_mmix.runs import record
from chainer_mmix.runs.files import RunError
from chainer_mmix.training.snapshots import find_snapshot

# Folders of Chainer's snapshot and LogReport, and files of our atomic writer and lock.
_FOLDER = re.compile(r"tmp(snapshot|best)_iter_\d+.{8}|log[a-z0-9_]{8}")
_FILE = re.compile(r"\..+\.\d+\.tmp|\.lock\.\d+")


def check_output(
    out: str | Path, resume: str | Path | None = None, again: bool = False
) -> None:
    """Checks that a run may write into a folder, without touching it.

    Args:
        out (str or path-like): The folder, which need not exist.
        resume (str or path-like): The snapshot from which the run is resumed, if any. A
            folder that holds a run is accepted only if it contains this snapshot.
        again (bool): Whether the run in the folder is to start again, since it has no
            snapshot yet. The default is ``False``.

    Raises:
        ValueError: If the path is not a folder, cannot be written to, or holds another
            run.
    """
    check_writable(out)
    out = Path(out)
    snapshot = find_snapshot(out)
    files = [name for name in (record.FILENAME, "log") if (out / name).exists()]
    files += [snapshot.name] if snapshot else []
    if not files or (resume and Path(resume).resolve().parent == out.resolve()):
        return
    if files[0] == record.FILENAME and not snapshot and (again or _failed(out, files)):
        return  # a run without a snapshot leaves nothing to lose
    remedy = "remove it" if files == ["log"] else "resume it"
    raise ValueError(
        f"the output folder {out} holds another run ({', '.join(files)}): {remedy}, or "
        "name another folder"
    )


def check_writable(out: str | Path) -> None:
    """Checks that a folder can be made and written to, without touching it.

    Args:
        out (str or path-like): The folder, which need not exist.

    Raises:
        TypeError: If it is not a path.
        ValueError: If it is not a folder, or cannot be written to.
    """
    if not isinstance(out, (str, os.PathLike)):
        raise TypeError(
            f"out must be the path of the output folder, such as 'result', not {out!r}"
        )
    if not str(out):
        raise ValueError("the output folder has an empty name: give it one")
    out = Path(out)
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(
            f"the output folder {out} cannot be made, for {existing} is a file: name "
            "another"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(
            f"the output folder {out} cannot be written to, for lack of permission in "
            f"{existing}: name another"
        )


def remove_leftovers(out: str | Path) -> None:
    """Removes the half-written files that a killed run has left in a folder.

    Args:
        out (str or path-like): The folder, to which no other run may be writing.
    """
    for path in Path(out).iterdir():
        if path.is_dir() and _FOLDER.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file() and _FILE.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _failed(out: Path, files: list[str]) -> bool:
    if len(files) > 1:
        return False
    try:
        return record.read_record(out).get("status") == "failed"
    except RunError:
        return False
