from __future__ import annotations

import numpy as np
from chainer.datasets import TupleDataset


def get_digits() -> tuple[TupleDataset, TupleDataset]:
    """Gets the digits that scikit-learn ships: 8x8 grey images of 0 to 9.

    The split is fixed and stratified: of every class, in scikit-learn's order, each
    fifth image is for testing. There are 1442 training and 355 test images.

    Source: :func:`sklearn.datasets.load_digits`, the test set of the `Optical
    Recognition of Handwritten Digits Data Set
    <https://archive.ics.uci.edu/dataset/80>`_. The same people wrote both parts, so
    this test is easier than one on new writers.

    Returns:
        tuple of ~chainer.datasets.TupleDataset: The training and the test set. An
        example is an image, float32 of shape (1, 8, 8) in [0, 1], and its label, an
        int32 in 0 to 9.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int32)
    is_test = np.zeros(len(labels), bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    return (
        TupleDataset(images[~is_test], labels[~is_test]),
        TupleDataset(images[is_test], labels[is_test]),
    )
