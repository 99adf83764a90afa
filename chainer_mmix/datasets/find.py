from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from chainer_mmix.datasets.augment import Augment
from chainer_mmix.datasets.folder import get_folder
from chainer_mmix.datasets.npz import get_npz
from chainer_mmix.datasets.picture import RandomResizedCrop
from chainer_mmix.datasets.registry import DATASETS, Dataset
from chainer_mmix.datasets.splits import Splits, as_splits, labels_of, split_off
from chainer_mmix.lookup import lookup

KINDS = {"folder": "folder:PATH", "npz": "npz:FILE"}


def kind_of(name: str) -> str:
    """Checks the name of a dataset, before anything is read.

    Args:
        name (str): What :func:`find` takes.

    Returns:
        str: The name, or ``"folder:PATH"`` or ``"npz:FILE"`` for any of these.

    Raises:
        ValueError: If there is none of that name.
    """
    kind, colon, _ = name.partition(":")
    if colon and kind not in KINDS:
        raise ValueError(
            f"unknown kind of dataset {kind!r} in {name!r}: there are "
            f"{' and '.join(KINDS.values())}"
        )
    if not colon and name not in DATASETS:
        path = Path(name).expanduser()
        if path.is_dir() or path.is_file():
            meant = "folder" if path.is_dir() else "npz"
            raise ValueError(f"{name} is a path: did you mean {meant}:{name}?")
        names = [*DATASETS, *KINDS.values()]
        lookup(dict.fromkeys(names), name, "dataset")
    return KINDS[kind] if colon else name


def find(
    name: str,
    *,
    data_root: str | os.PathLike | None = None,
    size: int | None = None,
    validation_split: float | None = None,
    seed: int = 0,
    skip_corrupt: bool = False,
) -> Dataset:
    """Finds a dataset by its name or path.

    Args:
        name (str): A name in :data:`DATASETS`, ``"folder:PATH"`` for pictures (see
            :func:`get_folder`) or ``"npz:FILE"`` for arrays (see :func:`get_npz`). The
            last two are read at once.
        data_root (str or path-like): Where the files of a named dataset are, see
            :func:`chainer_mmix.datasets.download.fetch`.
        size (int): For pictures in a folder, see :func:`get_folder`.
        validation_split (float): The share of the training set that becomes the
            validation set, stratified. The default is ``None``: none is split off.
        seed (int): Determines the split. The default is 0.
        skip_corrupt (bool): For pictures in a folder, see :func:`get_folder`.

    Returns:
        Dataset: The dataset, for :func:`load` and :func:`load_splits`.

    Raises:
        ValueError: If there is no dataset of that name, an argument does not apply to
            it, or its pictures or arrays are invalid.
        OSError: If it cannot be read.
    """
    kind_of(name)
    kind, colon, path = name.partition(":")
    is_folder = bool(colon) and kind == "folder"
    for given, option, applies in (
        (size is not None, "size", is_folder),
        (skip_corrupt, "skip_corrupt", is_folder),
        (data_root is not None, "data_root", not colon),
    ):
        if given and not applies:
            raise ValueError(f"{_flag(option)} is not for {name}: leave it out")
    if is_folder:
        size = 224 if size is None else size
        splits = get_folder(
            path,
            size=size,
            validation_split=validation_split,
            seed=seed,
            skip_corrupt=skip_corrupt,
        )
        augment = RandomResizedCrop(size)
        names = splits.class_names
        return Dataset(lambda: splits, len(names), augment, names)
    if colon:
        return _find_npz(path, validation_split, seed)
    dataset = DATASETS[name]
    load = dataset.load
    if data_root is not None:
        if not dataset.has_files:
            raise ValueError(
                f"{name} comes with a package: leave {_flag('data_root')} out"
            )
        load = partial(load, data_root=data_root)
    if validation_split is not None:
        load = partial(_load_and_split, load, validation_split, seed)
    return dataset._replace(load=load)


def short_name(name: str) -> str:
    """Returns a name for files and folders: ``"pets"`` for ``"folder:data/pets"``.

    Args:
        name (str): What :func:`find` takes.

    Returns:
        str: The name of a named dataset, or of the last folder or file of a path.
    """
    kind, colon, path = name.partition(":")
    last = Path(path).expanduser().resolve()
    return name if not colon else last.stem if kind == "npz" else last.name


def _flag(option: str) -> str:
    return f"{option} (--{option.replace('_', '-')})"


def _find_npz(path: str, validation_split: float | None, seed: int) -> Dataset:
    train: Any
    test: Any
    train, test = get_npz(path)
    validation: Any = None
    if validation_split is not None:
        train, validation = split_off(train, validation_split, seed)
    elif test is None:
        raise ValueError(
            f"{path} has no x_test and t_test to evaluate on: give a validation split "
            "(--validation-split), such as 0.2"
        )
    splits = Splits(train, validation, test)
    n_class = int(labels_of(train).max()) + 1
    shape = np.shape(train[0][0])
    augment = Augment(padding=max(1, min(shape[1:]) // 8)) if len(shape) == 3 else None
    return Dataset(lambda: splits, n_class, augment)


def _load_and_split(load: Callable, validation_split: float, seed: int) -> Splits:
    splits = as_splits(load())
    parts: Any = split_off(splits.train, validation_split, seed)
    return splits._replace(train=parts[0], validation=parts[1])
