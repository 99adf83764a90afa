from __future__ import annotations

from collections.abc import Sized

import numpy as np
from numpy.typing import ArrayLike


def check_labels(
    images: Sized, labels: ArrayLike, n_class: int, name: str = "the dataset"
) -> np.ndarray:
    """Checks labels before a long training meets a bad one.

    Args:
        images (sequence): The images that the labels belong to.
        labels (sequence): One label an image.
        n_class (int): The number of classes; labels are 0 to ``n_class - 1``.
        name (str): What the errors call the dataset.

    Returns:
        numpy.ndarray: The labels as int32 of shape (N,).

    Raises:
        ValueError: If there are not as many labels as images, or if a label is not
            an integer or out of range.
    """
    array = np.asarray(labels)
    if array.shape != (len(images),):
        raise ValueError(
            f"{name} has labels of shape {array.shape} for {len(images)} images: give "
            f"one label an image, shape ({len(images)},)"
        )
    if not len(array):
        raise ValueError(f"{name} is empty: there is nothing to train on")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{name} has labels of dtype {array.dtype}: give class numbers, integers "
            f"from 0 to {n_class - 1}"
        )
    bad = np.flatnonzero((array < 0) | (array >= n_class))
    if len(bad):
        raise ValueError(
            f"{name} has the label {array[bad[0]]} at index {bad[0]} ({len(bad)} such "
            f"in all): labels of {n_class} classes are 0 to {n_class - 1}"
        )
    return array.astype(np.int32)
