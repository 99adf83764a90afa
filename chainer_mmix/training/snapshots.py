from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import chainer
from chainer.serializers import NpzDeserializer
from chainer.serializers.npz import serialize

from chainer_mmix.runs.files import RunError
from chainer_mmix.runs.log import read_log
from chainer_mmix.training.safe_npz import SnapshotError, read_snapshot

_NAME = re.compile(r"snapshot_iter_(\d+)")
_BEST = re.compile(r"best_iter_(\d+)")
# Where a link may be in a file: by itself, in a classifier, or in either's Trainer.
_PREFIXES = ("", "predictor/", "updater/model:main/", "updater/model:main/predictor/")
_POLICY = "policy/rng"


def find_snapshot(out: str | Path) -> Path | None:
    """Finds the newest snapshot of the run in a folder, after the most iterations.

    If a run went back to an older snapshot, later ones of the abandoned training may be
    left over. They are ignored: the log in a snapshot must be the beginning of the file
    ``log``.

    Args:
        out (str or path-like): The folder.

    Returns:
        pathlib.Path: The snapshot, or ``None`` if there is none.
    """
    return next(_newest_first(Path(out)), None)


def find_good_snapshot(out: str | Path) -> tuple[Path | None, list[SnapshotError]]:
    """Finds the newest undamaged snapshot of the run in a folder.

    Args:
        out (str or path-like): The folder.

    Returns:
        tuple: The snapshot, or ``None`` if there is none, and the error of each newer
        one.
    """
    flaws = []
    for path in _newest_first(Path(out)):
        try:
            read_snapshot(path)
        except SnapshotError as e:
            flaws.append(e)
        else:
            return path, flaws
    return None, flaws


def find_best_snapshot(out: str | Path) -> Path | None:
    """Finds the snapshot of the best epoch of the run in a folder.

    Args:
        out (str or path-like): The folder.

    Returns:
        pathlib.Path: The snapshot, or ``None`` if none was kept.
    """
    return next(_newest_first(Path(out), _BEST), None)


def _newest_first(out: Path, pattern: re.Pattern[str] = _NAME) -> Iterator[Path]:
    found = {
        int(match[1]): path
        for path in (out.iterdir() if out.is_dir() else ())
        if (match := pattern.fullmatch(path.name))
    }
    try:
        log = read_log(out)
    except RunError:
        log = None
    for n in sorted(found, reverse=True):
        if log is None or _is_of_run(found[n], log):
            yield found[n]


def load_snapshot(
    path: str | Path,
    trainer: chainer.training.Trainer,
    members: Mapping[str, Any] | None = None,
) -> None:
    """Restores a Trainer from its snapshot.

    Unlike :func:`chainer.serializers.load_npz`, it executes no code from the file, and
    accepts only arrays of the shapes that the Trainer has, without broadcasting.

    Args:
        path (str or path-like): The snapshot.
        trainer (~chainer.training.Trainer): A Trainer made like the one that was saved.
            After an error, its state is undefined.
        members (mapping): The arrays in the file, if they have been read already.

    Raises:
        SnapshotError: If the file is not a snapshot, or not of such a Trainer.
    """
    if members is None:
        members = read_snapshot(path)
    deserializer = _StrictDeserializer(members)
    try:
        deserializer.load(trainer)
    except KeyError as e:
        raise _another(path, f"it lacks {_last(e.args[0])}") from e
    except (TypeError, ValueError, AttributeError) as e:
        raise _another(path, str(e)) from e
    if deserializer.missing:
        raise _another(path, f"it lacks {_last(min(deserializer.missing))}")
    left = [
        key
        for key in members
        if key.startswith("updater/") and key not in deserializer.used
    ]
    if left:
        raise _another(path, f"it also has {_last(left[0])}")


def load_weights(link: chainer.Link, path: str | Path) -> None:
    """Loads weights into a link.

    The file was written by :func:`chainer.serializers.save_npz`, from such a link, from
    a classifier whose predictor it is, or from the Trainer of either (a snapshot).
    Unlike :func:`chainer.serializers.load_npz`, this function executes no code from the
    file, and accepts only arrays of the shapes that the link has, without broadcasting.

    Args:
        link (~chainer.Link): The link. After an error, its weights are undefined.
        path (str or path-like): The file.

    Raises:
        SnapshotError: If the file is none of these, or of another link.
    """
    members = read_snapshot(path)
    wanted = {key for key in serialize(link) if not key.endswith(_POLICY)}
    parts = [
        {k.removeprefix(p): v for k, v in members.items() if k.startswith(p)}
        for p in _PREFIXES
    ]
    part = max(parts, key=lambda part: len(part.keys() & wanted))
    deserializer = _StrictDeserializer(part)
    try:
        deserializer.load(link)
        left = [key for key in part.keys() - deserializer.used if key != _POLICY]
        if left:
            raise ValueError(f"they also have {min(left)}")
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        reason = f"they lack {e.args[0]}" if isinstance(e, KeyError) else str(e)
        raise SnapshotError(
            f"the weights in {path} do not fit {type(link).__name__} ({reason}): load "
            "them into a link like the one that was saved"
        ) from e


def _is_of_run(path: Path, log: Sequence[Mapping[str, Any]]) -> bool:
    """Tells whether the log in a snapshot, if there is one, is how a log begins."""
    try:
        members = read_snapshot(
            path, lambda name: name.startswith("extensions/") and name.endswith("/_log")
        )
        saved = [json.loads(str(log)) for log in members.values()]
    except ValueError:
        return True  # whoever loads it says what is wrong
    return not saved or any(_begins(own, log) for own in saved)


def continues_log(out: Path, own: Sequence[Mapping[str, Any]]) -> bool:
    """Tells whether a resumed log is how that of a folder, if there is one, begins."""
    try:
        return _begins(own, read_log(out))
    except RunError:
        return True


def _begins(own: Sequence, log: Sequence) -> bool:
    # As text, since NaN is not equal to itself.
    return json.dumps(own) == json.dumps(log[: len(own)])


class _StrictDeserializer(NpzDeserializer):
    """Refuses another shape, which NumPy would broadcast; notes what was read."""

    def __init__(self, npz, path="", used=None, missing=None):
        super().__init__(npz, path)
        self.used = set() if used is None else used
        self.missing = set() if missing is None else missing

    def __getitem__(self, key):
        path = f"{self.path}{key.strip('/')}/"
        return type(self)(self.npz, path, self.used, self.missing)

    def __call__(self, key, value):
        name = self.path + key.lstrip("/")
        if name not in self.npz and name.endswith(f"/{_POLICY}"):
            self.missing.add(name)
        saved = self.npz[name]
        self.used.add(name)
        shape = getattr(value, "shape", None)
        if shape is not None and shape != saved.shape and saved[()] is not None:
            raise ValueError(f"its {_last(name)} has shape {saved.shape}, not {shape}")
        return super().__call__(key, value)


def _another(path: str | Path, reason: str) -> SnapshotError:
    return SnapshotError(
        f"{path} is the snapshot of another model or setting ({reason}): choose "
        "those of the run that wrote it"
    )


def _last(key: str) -> str:
    return key.removeprefix("updater/").removeprefix("model:main/")
