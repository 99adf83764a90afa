from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from chainer_mmix.training import record
from chainer_mmix.training.snapshots import SnapshotError, find_snapshot

# What may change when a run goes on; the rest makes it another run.
_MAY_CHANGE = {
    "analyse",
    "batchsize",
    "data_on_device",
    "device",
    "epoch",
    "gpu",
    "graph",
    "lr",
    "lr_drop",
    "out",
    "resume",
    "tensorboard",
    "weight_decay",
}


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
        raise ValueError("the output folder has an empty name: give one with --out")
    out = Path(out)
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(
            f"the output folder {out} cannot be made, for {existing} is a file: name "
            "another with --out"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(
            f"the output folder {out} cannot be written to, for lack of permission in "
            f"{existing}: name another with --out"
        )
    snapshot = find_snapshot(out)
    files = [name for name in (record.FILENAME, "log") if (out / name).exists()]
    files += [snapshot.name] if snapshot else []
    if not files or (resume and Path(resume).resolve().parent == out.resolve()):
        return
    if files == [record.FILENAME] and _failed(out / record.FILENAME):
        return  # a run that failed in its first epoch leaves nothing to lose
    remedy = "go on with it by --resume" if snapshot else "remove it"
    raise ValueError(
        f"the output folder {out} holds another run ({', '.join(files)}): {remedy}, or "
        "name another folder with --out"
    )


def check_same_run(
    snapshot: str | Path, arguments: Mapping[str, Any], fixed: Collection[str] = ()
) -> None:
    """Checks that arguments are those of the run that a snapshot belongs to.

    How long and how fast it trains may change, what it trains may not. Without a
    ``run.json`` beside the snapshot there is nothing to compare with.

    Args:
        snapshot (str or path-like): The snapshot.
        arguments (mapping): The arguments of the run that is to go on from it.
        fixed (collection of str): Arguments that may not change either in this run.

    Raises:
        SnapshotError: If they differ; the message names each difference.
    """
    path = Path(snapshot).parent / record.FILENAME
    try:
        before = json.loads(path.read_text())["arguments"]
    except FileNotFoundError:
        return
    except (KeyError, TypeError, ValueError) as e:
        raise SnapshotError(
            f"{path}, the record of the run to resume, is damaged ({e}): remove it to "
            "resume without it"
        ) from e
    may_change = _MAY_CHANGE.difference(fixed)
    differences = [
        f"--{key.replace('_', '-')} was {before[key]} and is {value}"
        for key, value in arguments.items()
        if key in before and key not in may_change and before[key] != value
    ]
    if differences:
        raise SnapshotError(
            f"{snapshot} is the snapshot of another model or setting "
            f"({'; '.join(differences)}): resume with the arguments of that run"
        )


def _failed(path: Path) -> bool:
    try:
        return json.loads(path.read_text())["status"] == "failed"
    except (KeyError, TypeError, ValueError):
        return False
