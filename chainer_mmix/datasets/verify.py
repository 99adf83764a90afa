"""Finds pictures that cannot be read, before a training meets them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL
from PIL import Image, ImageFile

from chainer_mmix.datasets.picture import UnreadablePictureError, read_picture
from chainer_mmix.progress import Progress
from chainer_revive.atomic import write_atomically

_CHUNK = 64  # pictures between two lines of progress


def find_unreadable(
    paths: Sequence[str], memory: str | os.PathLike | None = None
) -> dict[str, str]:
    """Decodes all pictures, on all cores, and says which cannot be read.

    A JPEG has no checksum: damage that still decodes to some picture is not found.

    Args:
        paths (sequence of str): The files.
        memory (str or path-like): A JSON file that remembers what has been checked, by
            path, size and time of change. The default is to check all of them.

    Returns:
        dict: For each file that cannot be read, its path and the reason.
    """
    known = _recall(memory)
    states = {path: _state(path) for path in paths}
    checked = {
        path: known[path]
        for path, state in states.items()
        if state is not None and known.get(path, [])[:2] == state
    }
    todo = [path for path in states if path not in checked]
    reasons = {path: reason for path, (_, _, reason) in checked.items()}
    try:
        for path, reason, lasts in _check_all(todo):
            reasons[path] = reason
            state = states[path]
            if lasts and state is not None:
                checked[path] = [*state, reason]
    finally:  # also of a check that is interrupted
        if todo:
            _remember(memory, checked)
    return {path: reasons[path] for path in paths if reasons[path]}


def _check_all(paths: Sequence[str]) -> Iterator[tuple[str, str | None, bool]]:
    # Decoding releases the GIL.
    with (
        Progress(-(-len(paths) // _CHUNK)) as tell,
        ThreadPoolExecutor(os.cpu_count()) as pool,
        warnings.catch_warnings(),
    ):
        # Pillow warns of much that a person does not see.
        warnings.simplefilter("ignore")
        for start in range(0, len(paths), _CHUNK):
            tell(f"checking pictures, {start} of {len(paths)}")
            chunk = paths[start : start + _CHUNK]
            for path, result in zip(chunk, pool.map(_check, chunk), strict=True):
                yield path, *result


def _check(path: str) -> tuple[str | None, bool]:
    """Returns what is wrong, and whether it will be wrong the next time too."""
    try:
        read_picture(path)
    except UnreadablePictureError as e:
        return e.reason, getattr(e.__cause__, "errno", None) is None
    return None, True


def _state(path: str) -> list[int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def _readers() -> list:
    """Returns what decides besides the file: another Pillow may read more or less."""
    return [
        PIL.__version__,
        Image.MAX_IMAGE_PIXELS,
        ImageFile.LOAD_TRUNCATED_IMAGES,
    ]


def _recall(memory: str | os.PathLike | None) -> dict[str, list]:
    if memory is None:
        return {}
    try:
        content = json.loads(Path(memory).read_text(encoding="utf-8"))
        return content["files"] if content["readers"] == _readers() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remember(memory: str | os.PathLike | None, files: dict[str, list]) -> None:
    if memory is None:
        return
    try:
        Path(memory).parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(memory) as file:
            json.dump({"readers": _readers(), "files": files}, file)
    except OSError as e:
        warnings.warn(
            f"{memory} cannot be written ({e.strerror}), so the pictures are checked "
            "again the next time: set CHAINER_DATASET_ROOT to a folder that can",
            stacklevel=3,
        )
