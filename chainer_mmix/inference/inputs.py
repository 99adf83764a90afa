"""Finds what is to be predicted: pictures, folders of them, and files of arrays."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from chainer_mmix.datasets import Preprocess, find_pictures


def find_inputs(
    paths: Sequence[str | os.PathLike], preprocess: Preprocess
) -> list[tuple[str, str | np.ndarray]]:
    """Lists inputs by name.

    Args:
        paths (sequence of path-like): Pictures; folders, which stand for the pictures
            in them and below; and files ``.npy`` or ``.npz`` of an array ``x``, one
            input a row.
        preprocess (~chainer_mmix.datasets.Preprocess): Makes inputs of arrays.

    Returns:
        list of tuple: Of each its name and the picture's path or the input.

    Raises:
        ValueError: If there is no such file, a folder has no pictures, or an array is
            not as the network takes it.
    """
    found: list[tuple[str, str | np.ndarray]] = []
    for path in map(Path, paths):
        if (path / "run.json").exists():
            raise ValueError(
                f"{path} is the folder of a run, not of pictures: name one run, then "
                "what to classify"
            )
        if path.is_dir():
            pictures = find_pictures(path)
            if not pictures:
                raise ValueError(f"{path} has no pictures: name a folder that has some")
            found += [(picture, picture) for picture in pictures]
        elif not path.exists():
            raise ValueError(f"{path} does not exist: name a picture or a folder")
        elif path.suffix.lower() in (".npy", ".npz"):
            x = preprocess.array(_read_array(path), f"x of {path}")
            found += [(f"{path}[{i}]", row) for i, row in enumerate(x)]
        else:
            found.append((str(path), str(path)))
    if any(isinstance(source, str) for _, source in found):
        preprocess.check_pictures()
    return found


def _read_array(path: Path) -> np.ndarray:
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            return file
        with file:
            names = list(file)
            if "x" not in names and len(names) != 1:
                raise ValueError(
                    f"it has {', '.join(names) or 'nothing'} and no array 'x'"
                )
            return file["x" if "x" in names else names[0]]
    except (ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as e:
        raise ValueError(
            f"{path} is no whole file of an array x ({e}): save one by numpy.savez"
        ) from e
