from __future__ import annotations

import os

from chainer.datasets import TupleDataset
from scipy.io import loadmat

from chainer_mmix.datasets.download import RemoteFile, fetch
from chainer_mmix.datasets.idx import make_dataset

_URL = "http://ufldl.stanford.edu/housenumbers"
_FILES = (
    RemoteFile(
        f"{_URL}/train_32x32.mat",
        ("435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",),
    ),
    RemoteFile(
        f"{_URL}/test_32x32.mat",
        ("cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",),
    ),
)


def get_svhn(
    data_root: str | os.PathLike | None = None,
) -> tuple[TupleDataset, TupleDataset]:
    """Gets SVHN: 73257 training and 26032 test images of digits of house numbers.

    Source: http://ufldl.stanford.edu/housenumbers/, cropped digits, without the extra
    set. The checksums are those of TensorFlow Datasets.

    Args:
        data_root (str or path-like): See
            :func:`chainer_mmix.datasets.download.fetch`.

    Returns:
        tuple of ~chainer.datasets.TupleDataset: The training and the test set. An
        example is an image, float32 of shape (3, 32, 32) in [0, 1], and its label, an
        int32, the digit itself.

    Raises:
        OSError: If a file can neither be found nor be downloaded.
        ValueError: If one is not as published.
    """

    def read(file: RemoteFile) -> TupleDataset:
        content = loadmat(fetch(file, "svhn", data_root))
        images = content["X"].transpose(3, 2, 0, 1)
        # Zero is written 10.
        return make_dataset(images, content["y"][:, 0] % 10, "SVHN")

    train, test = map(read, _FILES)
    return train, test
