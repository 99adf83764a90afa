"""The format of MNIST and of the sets that follow it."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from chainer.datasets import TupleDataset

from chainer_mmix.datasets.download import RemoteFile, fetch


def read_idx(
    file: str | os.PathLike | IO[bytes], name: str | None = None
) -> np.ndarray:
    """Reads a gzipped IDX file of bytes.

    Args:
        file (path or binary file): What to read.
        name (str): What the errors call it. The default is the path.

    Returns:
        numpy.ndarray: uint8, of the shape that the file gives.

    Raises:
        ValueError: If it is cut short, damaged or of another format.
    """
    name = name or str(file)
    try:
        with gzip.open(file) as content:
            data = content.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise ValueError(
            f"{name} is cut short or damaged ({e}): remove it and get it anew"
        ) from e
    n_dim = data[3] if data[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(data, ">u4", n_dim, 4) if len(data) >= 4 + 4 * n_dim else ()
    start = 4 + 4 * n_dim
    n = math.prod(map(int, shape))
    if not n_dim or not len(shape) or len(data) != start + n:
        raise ValueError(
            f"{name} is no IDX file of bytes, or cut short: it has {len(data)} bytes "
            f"and begins with {data[:4].hex(' ')}; remove it and get it anew"
        )
    return np.frombuffer(data, np.uint8, n, start).reshape(shape)


def make_dataset(images: np.ndarray, labels: np.ndarray, name: str) -> TupleDataset:
    """Makes a dataset of bytes.

    Args:
        images (numpy.ndarray): uint8, of shape (N, H, W) or (N, C, H, W).
        labels (numpy.ndarray): Integers from 0, of shape (N,).
        name (str): What the error calls it.

    Returns:
        ~chainer.datasets.TupleDataset: Images, float32 of shape (C, H, W) in [0, 1],
        and int32 labels.

    Raises:
        ValueError: If there are not as many labels as images.
    """
    if len(images) != len(labels):
        raise ValueError(
            f"{name} has {len(images)} images and {len(labels)} labels: these files do "
            "not belong together"
        )
    if images.ndim == 3:
        images = images[:, None]
    x = images.astype(np.float32, order="C")
    x /= 255
    return TupleDataset(x, labels.astype(np.int32))


def get_idx_pairs(
    dataset: str, files: tuple[RemoteFile, ...], data_root: str | os.PathLike | None
) -> tuple[TupleDataset, TupleDataset]:
    """Gets a training and a test set, each of a file of images and one of labels."""
    return read_idx_pairs(dataset, [fetch(file, dataset, data_root) for file in files])


def read_idx_pairs(
    dataset: str, paths: list[Path]
) -> tuple[TupleDataset, TupleDataset]:
    """Reads the training images and labels and the test images and labels."""
    x, t, x_test, t_test = map(read_idx, paths)
    return make_dataset(x, t, dataset), make_dataset(x_test, t_test, dataset)
