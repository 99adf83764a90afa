from __future__ import annotations

import gzip
import hashlib
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import chainer
from chainer.datasets import TupleDataset

# What the loader raises for a damaged file. The first is an OSError too.
_DAMAGED = (
    gzip.BadGzipFile,
    EOFError,
    KeyError,
    ValueError,
    pickle.UnpicklingError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def get_cifar10() -> tuple[TupleDataset, TupleDataset]:
    """Gets CIFAR-10: 50000 training and 10000 test images of 10 classes.

    A thin layer over :func:`chainer.datasets.get_cifar10`, which downloads the archive
    on first use and caches it.

    Returns:
        tuple of ~chainer.datasets.TupleDataset: The training and the test set. An
        example is an image, float32 of shape (3, 32, 32) in [0, 1], and its label, an
        int32.

    Raises:
        OSError: If the archive can neither be found in the cache nor be downloaded;
            the message says where to put it.
        ValueError: If the cached files are not CIFAR-10.
    """
    return _load("cifar-10", chainer.datasets.get_cifar10)


def get_cifar100() -> tuple[TupleDataset, TupleDataset]:
    """Gets CIFAR-100: 50000 training and 10000 test images of 100 classes.

    A thin layer over :func:`chainer.datasets.get_cifar100`. The labels are the fine
    ones. Returns and errors are those of :func:`get_cifar10`.
    """
    return _load("cifar-100", chainer.datasets.get_cifar100)


def _load(name: str, loader: Callable) -> tuple[TupleDataset, TupleDataset]:
    # As chainer.datasets and chainer.dataset.cached_download name them.
    url = f"https://www.cs.toronto.edu/~kriz/{name}-python.tar.gz"
    root = Path(chainer.dataset.get_dataset_root())
    archive = root / "_dl_cache" / hashlib.md5(url.encode()).hexdigest()
    cached = root / "pfnet" / "chainer" / "cifar" / f"{name}.npz"
    try:
        return loader(dtype="float32")
    except _DAMAGED as e:
        culprit = cached if cached.exists() else archive
        raise ValueError(
            f"{culprit} is not {name.upper()} as {url} has it ({_reason(e)}): remove "
            "it, and it is downloaded anew"
        ) from e
    except OSError as e:
        if archive.exists() or isinstance(e, PermissionError):
            raise
        raise OSError(
            f"{name.upper()} is not in Chainer's dataset cache and cannot be "
            f"downloaded ({_reason(e)}): fetch {url} elsewhere and save it as "
            f"{archive}, or set CHAINER_DATASET_ROOT to a folder that has it there"
        ) from e


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
