"""Checks of examples before a training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from chainer.datasets import DictDataset, SubDataset, TransformDataset, TupleDataset

from chainer_mmix.datasets import labels_of
from chainer_mmix.mixing.targets import check_range
from chainer_mmix.training.arguments import kind_of
from chainer_mmix.training.generators import generators_of
from chainer_mmix.training.precision import is_half
from chainer_revive.cpu.graphs import set_state, state_of
from chainer_revive.example_random import Seeds, Visit, read


def check_dataset(dataset: Any, name: str) -> None:
    """Raises an error unless something is a sequence, and not an empty one."""
    is_sequence = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if isinstance(dataset, Mapping) or not is_sequence:
        raise TypeError(
            f"{name} must be a sequence of examples (image, label), such as "
            f"chainer.datasets.TupleDataset(x, t), not {kind_of(dataset)}"
        )
    if len(dataset) == 0:
        raise ValueError(f"{name} has no examples: give at least one")


def first_of(dataset: Sequence) -> Any:
    """Reads the first example; what it draws is drawn again later."""
    generators = generators_of([dataset])
    before = [*map(state_of, generators)]
    try:
        return read(dataset, Visit(0, 0, Seeds(1, 1)))
    finally:
        for generator, state in zip(generators, before, strict=True):
            set_state(generator, state)


def is_in_memory(dataset: Any) -> bool:
    """Tells whether to read an example opens no file, before workers do."""
    if isinstance(dataset, (SubDataset, TransformDataset)):
        return is_in_memory(dataset._dataset)
    if isinstance(dataset, (TupleDataset, DictDataset)):
        return all(map(is_in_memory, _parts(dataset)))
    return isinstance(dataset, (list, tuple, np.ndarray))


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


def check_known_examples(
    dataset: Sequence, name: str, batchsize: int, is_shuffled: bool
) -> None:
    """Checks that examples fit into minibatches, if they are in memory one by one.

    Args:
        dataset (sequence): The examples.
        name (str): What the error calls it.
        batchsize (int): Examples in a minibatch.
        is_shuffled (bool): Whether any two may come into one.

    Raises:
        TypeError: If one is not a pair, or its label is a string.
        ValueError: If two that come into one minibatch have other shapes or dtypes.
    """
    known = _known(dataset)
    if known is None:
        return
    base: Any = dataset
    while isinstance(base, SubDataset):
        base = base._dataset
    if isinstance(base, list):
        for example in known:
            check_example(example, name)
    elif isinstance(base, TupleDataset) and isinstance(base._datasets[-1], list):
        for *_, label in known:
            check_example((None, label), name)
    if batchsize == 1:
        return
    n = len(known) if is_shuffled else batchsize
    for start in range(0, len(known), n):
        first: dict[tuple, int] = {}  # of each form
        for i in range(start, min(start + n, len(known))):
            first.setdefault(_form(known[i]), i)
        if len(first) > 1:
            i, j = [*first.values()][:2]
            raise ValueError(
                f"examples {i} and {j} of {name} do not fit into one minibatch, "
                f"{written(dataset[i])} and {written(dataset[j])}: make them alike, or "
                "give batchsize=1"
            )


def _known(dataset: Any) -> Sequence | None:
    """Returns of each example what is in a list, ``None`` if nothing is."""
    if isinstance(dataset, SubDataset):
        known = _known(dataset._dataset)
        part, order = slice(dataset._start, dataset._finish), dataset._order
        if known is None or order is None:
            return known and known[part]
        return [known[i] for i in order[part]]
    if isinstance(dataset, (TupleDataset, DictDataset)):
        lists = [part for part in _parts(dataset) if isinstance(part, (list, tuple))]
        return [*zip(*lists, strict=True)] if lists else None
    return dataset if isinstance(dataset, list) else None


def _parts(dataset: TupleDataset | DictDataset) -> Iterable[Any]:
    parts = dataset._datasets
    return parts.values() if isinstance(parts, dict) else parts


def _form(example: Any) -> tuple:
    """Returns what must be the same for all examples in a minibatch."""
    if isinstance(example, dict):
        return tuple((key, *_form((example[key],))) for key in sorted(example))
    return tuple(
        (part.shape, part.dtype if part.dtype.kind == "f" and not is_half() else None)
        if isinstance(part, np.ndarray) and part.ndim
        else None
        for part in example
    )


def written(example: Any) -> str:
    """Writes the dtypes and shapes of an example."""
    parts = example.values() if isinstance(example, dict) else example
    kinds = (getattr(part, "dtype", type(part).__name__) for part in parts)
    shapes = (getattr(part, "shape", ()) for part in parts)
    words = (f"{k} {s or ''}".strip() for k, s in zip(kinds, shapes, strict=True))
    return f"({', '.join(words)})"


def check_known_labels(
    dataset: Sequence,
    name: str,
    n_class: int,
    ignore_label: int | None,
    key: int | str = -1,
) -> None:
    """Checks the labels of a dataset, if they can be had without reading images.

    Args:
        dataset (sequence): Examples ``(image, label)``, or dicts.
        name (str): What the error calls it.
        n_class (int): The number of classes.
        ignore_label (int): A label that is no class, or ``None``.
        key (int or str): The name of the labels, of dicts. The default is none.

    Raises:
        TypeError: If a label is no number.
        ValueError: If a label is out of range.
    """
    try:
        labels = _labels(dataset, key)
    except ValueError:  # of several shapes
        return
    if labels is None or labels.shape != (len(dataset),):
        return
    if labels.dtype.kind == "O":
        for label in labels:
            check_example((None, label), name)
    if labels.dtype.kind != "i":
        return  # whatever it is, the loss function will tell
    try:
        check_range(labels, n_class, ignore_label)
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from e


def _labels(dataset: Any, key: int | str) -> np.ndarray | None:
    if not isinstance(key, str):
        return labels_of(dataset) if _has_labels(dataset) else None
    if isinstance(dataset, SubDataset):
        labels = _labels(dataset._dataset, key)
        part, order = slice(dataset._start, dataset._finish), dataset._order
        return (
            labels if labels is None else labels[part if order is None else order[part]]
        )
    if isinstance(dataset, DictDataset):
        labels = dataset._datasets.get(key)
        return np.asarray(labels) if is_in_memory(labels) else None
    return None


def _has_labels(dataset: Any) -> bool:
    if isinstance(dataset, SubDataset):
        return _has_labels(dataset._dataset)
    if isinstance(dataset, TupleDataset):
        parts = dataset._datasets
        return len(parts) == 2 and isinstance(parts[1], (np.ndarray, list, tuple))
    if isinstance(dataset, list):
        return all(isinstance(e, tuple) and len(e) == 2 for e in dataset)
    return hasattr(dataset, "labels")
