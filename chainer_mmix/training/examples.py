"""Checks of examples before a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from chainer.datasets import SubDataset, TupleDataset

from chainer_mmix.datasets import labels_of
from chainer_mmix.mixing.targets import check_range


def check_example(example: Any, name: str) -> None:
    """Raises a TypeError if an example is not a pair, or its label is a string."""
    if isinstance(example, dict):
        return
    if isinstance(example, list):
        raise TypeError(
            f"an example of {name} is a list, which Chainer takes for one array: give "
            "tuples (image, label), as by [tuple(example) for example in data]"
        )
    if not isinstance(example, tuple):
        raise TypeError(
            f"an example of {name} is of type {type(example).__name__}, but pairs "
            "(image, label) are needed: join two arrays, "
            "chainer.datasets.TupleDataset(x, t)"
        )
    label = example[-1] if len(example) > 1 else None
    if label is None:
        raise TypeError(
            f"an example of {name} has no label: pairs (image, label) are needed, such "
            "as those of chainer.datasets.TupleDataset(x, t)"
        )
    if isinstance(label, (str, bytes)):
        raise TypeError(
            f"a label of {name} is {str(label)!r}, but Chainer's losses take numbers: "
            "class_names, t = numpy.unique(t, return_inverse=True), "
            "t.astype(numpy.int32)"
        )


def check_known_labels(
    dataset: Sequence, name: str, n_class: int, ignore_label: int | None
) -> None:
    """Checks the labels of a dataset, if they can be had without reading images.

    Args:
        dataset (sequence): Examples ``(image, label)``.
        name (str): What the error calls it.
        n_class (int): The number of classes.
        ignore_label (int): A label that is no class, or ``None``.

    Raises:
        ValueError: If a label is out of range.
    """
    if not _has_labels(dataset):
        return
    labels = labels_of(dataset)
    if labels.shape != (len(dataset),) or labels.dtype.kind != "i":
        return  # whatever it is, the loss function will tell
    try:
        check_range(labels, n_class, ignore_label)
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from e


def _has_labels(dataset: Any) -> bool:
    if isinstance(dataset, SubDataset):
        return _has_labels(dataset._dataset)
    if isinstance(dataset, TupleDataset):
        parts = dataset._datasets
        return len(parts) == 2 and isinstance(parts[1], (np.ndarray, list, tuple))
    if isinstance(dataset, list):
        return all(isinstance(e, tuple) and len(e) == 2 for e in dataset)
    return hasattr(dataset, "labels")
