from __future__ import annotations

import os
from pathlib import Path

from chainer.datasets import TupleDataset

from chainer_mmix.datasets.download import RemoteFile
from chainer_mmix.datasets.idx import get_idx_pairs, read_idx_pairs

_NAME = "fashion-mnist"
_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
# Second, that of Debian's copy: the same content, compressed anew.
_FILES = (
    RemoteFile(
        f"{_URL}/train-images-idx3-ubyte.gz",
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
        ),
    ),
    RemoteFile(
        f"{_URL}/train-labels-idx1-ubyte.gz",
        (
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
        ),
    ),
    RemoteFile(
        f"{_URL}/t10k-images-idx3-ubyte.gz",
        (
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
        ),
    ),
    RemoteFile(
        f"{_URL}/t10k-labels-idx1-ubyte.gz",
        (
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
        ),
    ),
)
# Of Debian's and Ubuntu's package dataset-fashion-mnist.
_INSTALLED = Path("/usr/share/datasets/fashion-mnist")


def get_fashion_mnist(
    data_root: str | os.PathLike | None = None,
) -> tuple[TupleDataset, TupleDataset]:
    """Gets Fashion-MNIST: 60000 training and 10000 test images of 10 kinds of clothes.

    Where Debian's or Ubuntu's package ``dataset-fashion-mnist`` is installed, its files
    are read and nothing is downloaded.

    Source: https://github.com/zalandoresearch/fashion-mnist. The checksums are those of
    TensorFlow Datasets.

    Args:
        data_root (str or path-like): See
            :func:`chainer_mmix.datasets.download.fetch`.

    Returns:
        tuple of ~chainer.datasets.TupleDataset: The training and the test set. An
        example is an image, float32 of shape (1, 28, 28) in [0, 1], and its label, an
        int32 in 0 to 9.

    Raises:
        OSError: If a file can neither be found nor be downloaded.
        ValueError: If one is not as published.
    """
    if data_root is None and _INSTALLED.is_dir():
        return read_idx_pairs(_NAME, [_INSTALLED / file.name for file in _FILES])
    return get_idx_pairs(_NAME, _FILES, data_root)
