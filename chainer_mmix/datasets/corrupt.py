from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

import numpy as np
from chainer.datasets import SubDataset, TransformDataset, TupleDataset

from chainer_mmix.datasets.splits import labels_of


def take_subset(dataset: Sequence, size: int, seed: int) -> SubDataset:
    """Takes a stratified random subset of a labelled dataset.

    Each class keeps its share to within one example. With one seed, a smaller subset
    is part of a larger one.

    Args:
        dataset (sequence): Examples ``(image, label)``.
        size (int): The number of examples to keep, 1 to ``len(dataset)``.
        seed (int): Fixes the choice.

    Returns:
        ~chainer.datasets.SubDataset: The chosen examples.

    Raises:
        ValueError: If ``size`` is out of range.
    """
    if not 1 <= size <= len(dataset):
        raise ValueError(
            f"a subset of {size} examples cannot be taken: the training set has "
            f"{len(dataset)}, choose 1 to that many"
        )
    labels = labels_of(dataset)
    order = np.random.default_rng([seed, 1]).permutation(len(labels))
    # Spreads every class evenly over [0, 1), then cuts.
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = order[np.argsort(position[order], kind="stable")]
    return SubDataset(dataset, 0, size, order=chosen)


def add_label_noise(
    dataset: Sequence, share: float, n_class: int, seed: int
) -> TupleDataset:
    """Replaces a share of the labels by uniformly drawn other ones.

    Args:
        dataset (sequence): Examples ``(image, label)``. It is left as it is.
        share (float): In [0, 1]; ``round(share * len(dataset))`` labels change.
        n_class (int): The number of classes, at least 2.
        seed (int): Fixes which labels change, and to what.

    Returns:
        ~chainer.datasets.TupleDataset: The same images with int32 labels.

    Raises:
        ValueError: If ``share`` is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of wrong labels must be in [0, 1], not {share}")
    labels = np.array(labels_of(dataset), np.int32)
    rng = np.random.default_rng([seed, 2])
    size = round(share * len(labels))
    wrong = rng.choice(len(labels), size, replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, n_class, size)) % n_class
    return TupleDataset(TransformDataset(dataset, itemgetter(0)), labels)
