from __future__ import annotations

import os
from pathlib import Path

from chainer_mmix.runs import record
from chainer_mmix.runs.files import RunError
from chainer_mmix.training.snapshots import find_snapshot


def check_output(out: str | Path, resume: str | Path | None = None) -> None:
    """Checks that a run may write into a folder, without touching it.

    Args:
        out (str or path-like): The folder, which need not exist.
        resume (str or path-like): The snapshot that the run goes on from, if any. A
            folder that holds a run is right only if this snapshot is in it.

    Raises:
        ValueError: If the folder is no folder, cannot be written to or holds another
            run.
    """
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
    snapshot = find_snapshot(out)
    files = [name for name in (record.FILENAME, "log") if (out / name).exists()]
    files += [snapshot.name] if snapshot else []
    if not files or (resume and Path(resume).resolve().parent == out.resolve()):
        return
    if files == [record.FILENAME] and _failed(out):
        return  # a run that failed in its first epoch leaves nothing to lose
    remedy = "resume it" if snapshot else "remove it"
    raise ValueError(
        f"the output folder {out} holds another run ({', '.join(files)}): {remedy}, or "
        "name another folder"
    )


def _failed(out: Path) -> bool:
    try:
        return record.read_record(out).get("status") == "failed"
    except RunError:
        return False
