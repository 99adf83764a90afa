"""Finds the examples that a trained network is evaluated on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from chainer_mmix import datasets
from chainer_mmix.inference.predictor import Predictor


class Examples(NamedTuple):
    """Labelled inputs of a network.

    Attributes:
        what (str): What they are, in a few words.
        names (sequence of str): The file of each, or its place.
        labels (numpy.ndarray): int32, of shape (N,).
        load (callable): Returns the input of an index.
    """

    what: str
    names: Sequence[str]
    labels: np.ndarray
    load: Callable[[int], np.ndarray]


def find_examples(
    predictor: Predictor,
    dataset: str | None = None,
    part: str | None = None,
    data_root: str | os.PathLike | None = None,
) -> Examples:
    """Finds what to evaluate a trained network on.

    Args:
        predictor (Predictor): The network.
        dataset (str): What :func:`chainer_mmix.datasets.find` takes. Folders may have
            some of the classes only; they are told by their names. The default is the
            dataset of the run.
        part (str): ``"train"``, ``"validation"`` or ``"test"``. The default is, for the
            dataset of the run, what it validated on, else the first there is of test,
            validation and train.
        data_root (str or path-like): Where the files of a named dataset are.

    Returns:
        Examples: The examples. Those for training are neither augmented nor are their
        labels changed.

    Raises:
        OSError: If the dataset cannot be read.
        ValueError: If its classes or its inputs are others than those of the network.
    """
    if dataset is None:
        return _of_run(predictor, part, data_root)
    kind = datasets.kind_of(dataset)
    path = dataset.partition(":")[2]
    if kind == "folder:PATH":
        return _of_folder(predictor, dataset, path, part)
    if kind == "npz:FILE":
        return _of_npz(predictor, Path(path).expanduser(), part)
    return _take(predictor, dataset, part, {"data_root": data_root})


def _of_run(predictor: Predictor, part: str | None, data_root: Any) -> Examples:
    arguments = predictor.record.get("arguments") or {}
    name = arguments.get("dataset")
    if name is None:
        raise ValueError("the run's record names no dataset: give one (--dataset)")
    keys = ("data_root", "size", "validation_split", "seed", "skip_corrupt")
    options = {key: arguments[key] for key in keys if key in arguments}
    if data_root is not None:
        options["data_root"] = data_root
    data = predictor.record.get("data") or {}
    seen = {key: arguments[key] for key in ("train_size", "seed") if key in arguments}
    examples = _take(predictor, name, part or data.get("held_out"), options, seen)
    was, n = data.get("n_held_out"), len(examples.labels)
    if part in (None, data.get("held_out")) and was not in (None, n):
        raise ValueError(
            f"the data are not those of the run (it validated on {was} images, and "
            f"there are {n}), so its validation set may hold what it trained on: put "
            "them back, or name other data (--dataset)"
        )
    return examples


def _take(
    predictor: Predictor,
    name: str,
    part: str | None,
    options: Mapping[str, Any],
    seen: Mapping[str, Any] = MappingProxyType({}),
) -> Examples:
    """Takes a part of a dataset that can be trained on.

    ``seen`` tells which of its training examples the run saw.
    """
    dataset = datasets.find(name, **options)
    splits = datasets.load_splits(dataset, name=name, **seen)
    part = part or next(p for p in ("test", "validation") if getattr(splits, p))
    examples = getattr(splits, part)
    if examples is None:
        there = [p for p in ("train", "validation", "test") if getattr(splits, p)]
        raise ValueError(f"{name} has no {part} set, only {', '.join(there)}")
    names, known = splits.class_names, predictor.class_names
    recorded = (predictor.record.get("data") or {}).get("class_names")
    is_other = names and recorded and list(names) != recorded
    if dataset.n_class != len(known) or is_other:
        raise ValueError(
            f"the classes of {name} are not those of the network: "
            f"{', '.join(names) or dataset.n_class}; it knows {', '.join(known)}"
        )
    shape, wanted = np.shape(examples[0][0]), predictor.preprocess.shape
    if wanted is not None and shape != wanted:
        raise ValueError(
            f"{name} has inputs of shape {shape}, but the network takes {wanted}: "
            "evaluate it on others"
        )
    paths = getattr(examples, "img_paths", None)
    return Examples(
        f"the {part} set of {datasets.short_name(name)}",
        paths or [f"{part}[{i}]" for i in range(len(examples))],
        datasets.labels_of(examples).astype(np.int32),
        lambda i: examples[i][0],
    )


def _of_folder(
    predictor: Predictor, name: str, path: str, part: str | None
) -> Examples:
    predictor.preprocess.check_pictures()
    paths, labels = datasets.find_examples(path, part, predictor.class_names)
    return Examples(
        datasets.short_name(name),
        paths,
        np.asarray(labels, np.int32),
        lambda i: predictor.preprocess.picture(paths[i]),
    )


def _of_npz(predictor: Predictor, path: Path, part: str | None) -> Examples:
    if part == "validation":
        raise ValueError(f"{path} has no validation set, only train and perhaps test")
    arrays = datasets.read_npz(path)
    suffix = "_test" if part != "train" and "x_test" in arrays else ""
    if part == "test" and not suffix:
        raise ValueError(f"{path} has no test set, x_test and t_test: take train")
    x = predictor.preprocess.array(arrays[f"x{suffix}"], f"x{suffix} of {path}")
    labels = datasets.check_labels(
        x, arrays[f"t{suffix}"], len(predictor.class_names), f"t{suffix} of {path}"
    )
    names = [f"{path}[{i}]" for i in range(len(x))]
    return Examples(f"x{suffix} of {path.name}", names, labels, lambda i: x[i])
