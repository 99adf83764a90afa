"""Training, validation and test set, and how one is split off another."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from chainer.datasets import SubDataset, TupleDataset


class Splits(NamedTuple):
    """The parts of a dataset.

    Attributes:
        train (sequence): The training set.
        validation (sequence): The set that choices are made on, or ``None``.
        test (sequence): The set of the final figure, or ``None``.
        class_names (tuple of str): The name of each label, if they have names.
    """

    train: Sequence
    validation: Sequence | None
    test: Sequence | None
    class_names: tuple[str, ...] = ()

    @property
    def held_out(self) -> Sequence:
        """The set to evaluate in training, validation if there is one, else test."""
        return getattr(self, self.held_out_name)

    @property
    def held_out_name(self) -> str:
        """The name of :attr:`held_out`, ``"validation"`` or ``"test"``."""
        return "test" if self.validation is None else "validation"


def as_splits(loaded: Any) -> Splits:
    """Returns what the ``load`` of a :class:`Dataset` has returned as a Splits."""
    if isinstance(loaded, Splits):
        return loaded
    train, test = loaded
    return Splits(train, None, test, getattr(train, "class_names", ()))


def labels_of(dataset: Sequence) -> np.ndarray:
    """Returns the labels of a dataset, without reading its images where it can.

    Args:
        dataset (sequence): Examples ``(image, label)``.

    Returns:
        numpy.ndarray: The labels, of shape (N,).
    """
    if hasattr(dataset, "labels"):
        return np.asarray(dataset.labels)
    if isinstance(dataset, TupleDataset):
        return np.asarray(dataset._datasets[1])
    if isinstance(dataset, SubDataset):
        part = slice(dataset._start, dataset._finish)
        order = dataset._order
        return labels_of(dataset._dataset)[part if order is None else order[part]]
    return np.array([label for _, label in dataset])


def check_split(share: float) -> None:
    """Raises a ValueError unless the share of a validation split is in (0, 1)."""
    if not (isinstance(share, numbers.Real) and 0 < share < 1):
        raise ValueError(f"the validation split must be between 0 and 1, not {share!r}")


def split_indices(
    labels: np.ndarray,
    share: float,
    seed: int,
    class_names: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a stratified validation split.

    Of a class of n examples, ``share * n``, rounded, are for validation. Which, depends
    on the seed and that class alone.

    Args:
        labels (numpy.ndarray): Class numbers, of shape (N,).
        share (float): In (0, 1).
        seed (int): Fixes the choice.
        class_names (sequence of str): What the errors call the classes.

    Returns:
        tuple of numpy.ndarray: The indices for training and for validation, each in
        ascending order.

    Raises:
        ValueError: If ``share`` is out of range or leaves a class without an example
            on one side.
    """
    check_split(share)
    is_validation = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        n = int(len(members) * share + 0.5)
        if not 0 < n < len(members):
            name = repr(class_names[label]) if class_names else label
            side = "validation" if n == 0 else "training"
            least = 0.5 / len(members)
            remedy = (
                f"choose one from {math.ceil(least * 1e4) / 1e4:g} to below "
                f"{math.floor((1 - least) * 1e4) / 1e4:g}"
                if len(members) > 1
                else "give it more, or leave it out"
            )
            raise ValueError(
                f"a validation split of {share} leaves class {name}, which has "
                f"{len(members)} example{'s' * (len(members) > 1)}, none for {side}: "
                f"{remedy}"
            )
        rng = np.random.default_rng([seed, 3, int(label)])
        is_validation[rng.choice(members, n, replace=False)] = True
    return np.flatnonzero(~is_validation), np.flatnonzero(is_validation)


def split_off(
    dataset: Sequence, share: float, seed: int
) -> tuple[SubDataset, SubDataset]:
    """Splits a stratified validation set off a training set.

    Args:
        dataset (sequence): Examples ``(image, label)``.
        share (float): In (0, 1).
        seed (int): Fixes the choice.

    Returns:
        tuple of ~chainer.datasets.SubDataset: The training and the validation set.

    Raises:
        ValueError: If ``share`` is out of range or leaves a class without an example
            on one side.
    """
    train, validation = split_indices(labels_of(dataset), share, seed)
    order = np.concatenate([train, validation])
    return (
        SubDataset(dataset, 0, len(train), order),
        SubDataset(dataset, len(train), len(order), order),
    )
