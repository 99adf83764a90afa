from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from chainer.datasets import TupleDataset

from chainer_mmix.datasets.download import RemoteFile, fetch, find_unpacked, unpacking
from chainer_mmix.datasets.idx import make_dataset

_FILE = RemoteFile(
    "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
    ("f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",),
)
_FOLDER = "stl10_binary"
_SHAPE = (3, 96, 96)


def get_stl10(
    data_root: str | os.PathLike | None = None,
) -> tuple[TupleDataset, TupleDataset]:
    """Gets the labelled part of STL-10: 5000 training and 8000 test images.

    What is needed of the archive is unpacked into a folder ``stl10_binary`` beside it,
    and if that is there, the archive is not needed any more.

    Source: https://cs.stanford.edu/~acoates/stl10/. The checksum is that of TensorFlow
    Datasets.

    Args:
        data_root (str or path-like): See
            :func:`chainer_mmix.datasets.download.fetch`.

    Returns:
        tuple of ~chainer.datasets.TupleDataset: The training and the test set. An
        example is an image, float32 of shape (3, 96, 96) in [0, 1], and its label, an
        int32 in 0 to 9.

    Raises:
        OSError: If the archive can neither be found nor be downloaded.
        ValueError: If it, or a file in the folder, is not as published.
    """
    folder = find_unpacked("stl10", _FOLDER, data_root)
    if folder is None:
        archive = fetch(_FILE, "stl10", data_root)
        folder = archive.with_name(_FOLDER)
        with unpacking(folder) as temporary, tarfile.open(archive) as content:
            for part in ("train", "test"):
                for name in (f"{part}_X.bin", f"{part}_y.bin"):
                    source: Any = content.extractfile(f"{_FOLDER}/{name}")
                    with open(temporary / name, "wb") as file:
                        shutil.copyfileobj(source, file)
    return _read(folder, "train"), _read(folder, "test")


def _read(folder: Path, part: str) -> TupleDataset:
    pixels = np.fromfile(folder / f"{part}_X.bin", np.uint8)
    labels = np.fromfile(folder / f"{part}_y.bin", np.uint8)
    if len(pixels) != len(labels) * np.prod(_SHAPE):
        raise ValueError(
            f"{folder / part}_X.bin has {len(pixels)} bytes, not the "
            f"{len(labels) * np.prod(_SHAPE)} of {len(labels)} images: remove {folder} "
            "and get it anew"
        )
    # Pixels go down the columns, and labels are from 1.
    return make_dataset(
        pixels.reshape(-1, *_SHAPE).swapaxes(2, 3), labels - 1, "STL-10"
    )
