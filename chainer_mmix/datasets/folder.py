"""Pictures in folders, one folder a class."""

from __future__ import annotations

import hashlib
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import chainer
import numpy as np
from PIL import Image

from chainer_mmix.datasets.picture import picture_formats
from chainer_mmix.datasets.picture_dataset import PictureDataset
from chainer_mmix.datasets.splits import Splits, check_split, split_indices
from chainer_mmix.datasets.verify import find_unreadable

_SPLITS = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}
# What unpackers and file servers leave behind. Names that begin with a dot are too.
_LEFTOVERS = {"__MACOSX", "@eaDir"}
_NAMED = 10  # of many files that are left out


def get_folder(
    root: str | os.PathLike,
    *,
    size: int = 224,
    validation_split: float | None = None,
    seed: int = 0,
    skip_corrupt: bool = False,
) -> Splits:
    """Gets pictures from folders, one folder a class.

    The classes are either below ``train/`` and ``val/`` (or ``validation/``) or
    ``test/``, or directly below ``root``, in which case a validation set is split off.
    Class names are sorted as strings, "10" before "2", as in ChainerCV, Keras and
    torchvision, and the labels are their positions. Pictures may lie in subfolders,
    links are followed, and names that begin with a dot, ``__MACOSX`` and ``@eaDir`` are
    ignored.

    All pictures are decoded before this returns. The results are remembered in
    Chainer's dataset cache, so only changed files are decoded the next time.

    Args:
        root (str or path-like): The folder.
        size (int): Height and width of the images. The default is 224.
        validation_split (float): The share of the training pictures that becomes the
            validation set, stratified. The default is ``None``: none is split off.
        seed (int): Fixes the split. The default is 0.
        skip_corrupt (bool): Whether to leave out pictures that cannot be read, with a
            warning that lists them. If one breaks later, another picture of its class
            replaces it. The default is ``False``: they raise an error.

    Returns:
        Splits: Each a :class:`PictureDataset` or ``None``.

    Raises:
        FileNotFoundError: If there is no such folder.
        OSError: If pictures cannot be read; it lists all of them.
        ValueError: If the folders are not arranged as above, a class is empty or is
            missing from one part, there is only one class, or the split leaves a class
            empty.
    """
    # What is remembered, and the paths of the pictures, must hold in any folder.
    root = Path(root).expanduser().resolve()
    if not root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {root}: name one that has a folder for each class"
        )
    if size < 1:
        raise ValueError(f"the size must be at least 1, not {size}")
    if validation_split is not None:
        check_split(validation_split)
    parts = _find_parts(root)
    _check_split_wanted(root, parts, validation_split)
    found = {}
    for name, folder in parts.items():
        found[name] = _scan(folder)
    _leave_out_unreadable(root, found, skip_corrupt)
    class_names = _check_classes(root, parts, found)
    datasets = {
        name: _make_dataset(classes, class_names, size, skip_corrupt)
        for name, classes in found.items()
    }
    if validation_split is not None:
        whole = datasets["train"]
        for name, indices in zip(
            ("train", "validation"),
            split_indices(whole.labels, validation_split, seed, class_names),
            strict=True,
        ):
            datasets[name] = whole.take(indices)
    return Splits(
        datasets["train"], datasets.get("validation"), datasets.get("test"), class_names
    )


def find_pictures(folder: str | os.PathLike) -> list[str]:
    """Lists the pictures in a folder and below, as :func:`get_folder` does.

    Args:
        folder (str or path-like): The folder.

    Returns:
        list of str: Their paths, sorted, by the endings of their names.
    """
    return sorted(str(file) for file in _walk(Path(folder), ()) if _is_picture(file))


def find_examples(
    root: str | os.PathLike, part: str | None, class_names: Sequence[str]
) -> tuple[list[str], list[int]]:
    """Lists the pictures of classes that a network knows, one folder a class.

    Args:
        root (str or path-like): A folder as :func:`get_folder` takes it. It may have
            some of the classes only.
        part (str): ``"train"``, ``"validation"`` or ``"test"``; ``None`` for the first
            of test, validation and train that there is.
        class_names (sequence of str): The classes by label.

    Returns:
        tuple: The paths and the labels.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no such part, no picture, or a class of another name.
    """
    root = Path(root).expanduser().resolve()
    if not root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {root}: name one that has a folder for each class"
        )
    parts = _find_parts(root)
    if part is not None and part not in parts:
        raise ValueError(f"{root} has no {part} set, only {', '.join(parts)}")
    order = (part,) if part else ("test", "validation", "train")
    folder = next(parts[name] for name in order if name in parts)
    classes = _scan(folder)
    if strange := [name for name in classes if name not in class_names]:
        raise ValueError(
            f"{folder} has classes that the network does not know: "
            f"{', '.join(strange)}; it knows {', '.join(class_names)}"
        )
    paths = [path for files in classes.values() for path in files]
    if not paths:
        raise ValueError(f"{folder} has no pictures in folders of the classes")
    labels = [class_names.index(name) for name, files in classes.items() for _ in files]
    return paths, labels


def _find_parts(root: Path) -> dict[str, Path]:
    """Returns the folder of each part."""
    folders = [path for path in _visible(root) if path.is_dir()]
    parts: dict[str, Path] = {}
    for path in folders:
        name = _SPLITS.get(path.name.lower())
        # A class may have such a name too, of trains for one.
        if name is None or any(map(_is_picture, _visible(path))):
            continue
        if name in parts:
            raise ValueError(
                f"{root} has both {parts[name].name}/ and {path.name}/: rename or "
                "merge them"
            )
        parts[name] = path
    if not parts:
        _check_depth(root, folders)
        return {"train": root}
    if "train" not in parts:
        names = " and ".join(f"{path.name}/" for path in parts.values())
        raise ValueError(f"{root} has {names} but no train/ with classes in it")
    others = ", ".join(path.name for path in folders if path not in parts.values())
    if others and len(parts) == 1:
        raise ValueError(
            f"{root} has {others} beside train/ but no val/ or test/: if the classes "
            f"are in train/, name {parts['train']}, and if it is one, put its pictures "
            "directly into it"
        )
    if others:
        warnings.warn(f"left out beside {parts['train']}: {others}", stacklevel=3)
    return parts


def _check_depth(root: Path, folders: Sequence[Path]) -> None:
    if len(folders) == 1:
        inner = _visible(folders[0])
        if sum(path.is_dir() for path in inner) > 1 and not any(
            map(_is_picture, inner)
        ):
            raise ValueError(
                f"{root} has one folder only, with others in it: did you mean "
                f"{folders[0]}?"
            )


def _check_split_wanted(
    root: Path, parts: Mapping[str, Path], validation_split: float | None
) -> None:
    if validation_split is None and len(parts) == 1:
        raise ValueError(
            f"{root} has no val/ or test/ to evaluate on: give a validation split "
            "(--validation-split), such as 0.2"
        )
    if validation_split is not None and "validation" in parts:
        raise ValueError(
            f"{parts['validation']} is a validation set already: leave the validation "
            f"split of {validation_split} out"
        )


def _scan(folder: Path) -> dict[str, list[str]]:
    """Returns the pictures of each class, in a fixed order."""
    classes: dict[str, list[str]] = {}
    written: dict[str, str] = {}
    others = []
    for path in _visible(folder):
        if not path.is_dir():
            others.append(path)
            continue
        # A name can be written in two ways; a Mac unpacks one, Linux the other.
        name = unicodedata.normalize("NFC", path.name)
        if name in classes:
            raise ValueError(
                f"{folder} has the class {name!r} twice, as {written[name]!a} and "
                f"{path.name!a} in Unicode: merge them"
            )
        files = list(_walk(path, ()))
        classes[name] = sorted(str(file) for file in files if _is_picture(file))
        written[name] = path.name
        others += [file for file in files if not _is_picture(file)]
    if others:
        names = sorted(str(path.relative_to(folder)) for path in others)
        more = len(names) - _NAMED
        warnings.warn(
            f"left out below {folder}, as no pictures of a class: "
            f"{', '.join(names[:_NAMED])}" + (f" and {more} more" if more > 0 else ""),
            stacklevel=3,
        )
    twins = Counter(name.casefold() for name in classes)
    if alike := sorted(name for name in classes if twins[name.casefold()] > 1):
        warnings.warn(
            f"{folder} has classes that differ in upper and lower case only: "
            f"{', '.join(alike)}",
            stacklevel=3,
        )
    return dict(sorted(classes.items()))


def _visible(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name not in _LEFTOVERS
    )


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    above = (*above, folder.resolve())
    for path in _visible(folder):
        if not path.is_dir():
            yield path
        elif path.resolve() not in above:  # links can lead round in a circle
            yield from _walk(path, above)


def _is_picture(path: Path) -> bool:
    kind = Image.registered_extensions().get(path.suffix.lower())
    return kind in picture_formats() and not path.is_dir()


def _leave_out_unreadable(
    root: Path, found: Mapping[str, dict[str, list[str]]], skip_corrupt: bool
) -> None:
    paths = [
        path
        for classes in found.values()
        for files in classes.values()
        for path in files
    ]
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    cache = Path(chainer.dataset.get_dataset_root()) / "chainer_mmix" / "checked"
    bad = find_unreadable(paths, cache / f"{digest}.json")
    if not bad:
        return
    listed = ", ".join(
        f"{Path(path).relative_to(root)} ({reason})" for path, reason in bad.items()
    )
    what = f"{len(bad)} of {len(paths)} pictures below {root} cannot be read"
    if not skip_corrupt:
        raise OSError(
            f"{what}: {listed}; repair or remove them, or leave them out with "
            "skip_corrupt (--skip-corrupt)"
        )
    warnings.warn(f"{what} and are left out: {listed}", stacklevel=3)
    for classes in found.values():
        for name, files in classes.items():
            classes[name] = [path for path in files if path not in bad]


def _check_classes(
    root: Path, parts: Mapping[str, Path], found: Mapping[str, dict[str, list[str]]]
) -> tuple[str, ...]:
    names = set(found["train"])
    for part, classes in found.items():
        for here, there, only in (
            ("train", part, names - set(classes)),
            (part, "train", set(classes) - names),
        ):
            if only:
                raise ValueError(
                    f"classes that are in {parts[here].name}/ but not in "
                    f"{parts[there].name}/ of {root}: {', '.join(sorted(only))}; add "
                    "or remove them"
                )
        if empty := [name for name, files in classes.items() if not files]:
            raise ValueError(
                f"classes without a picture below {parts[part]}: {', '.join(empty)}; "
                "add pictures or remove the folders"
            )
    if len(names) < 2:
        what = f"one class only, {min(names)!r}" if names else "no folders"
        raise ValueError(
            f"{parts['train']} has {what}: give each class a folder of its own there"
        )
    if single := [name for name, files in found["train"].items() if len(files) == 1]:
        warnings.warn(
            f"classes of one picture below {parts['train']}: {', '.join(single)}",
            stacklevel=3,
        )
    return tuple(found["train"])


def _make_dataset(
    classes: Mapping[str, Sequence[str]],
    class_names: tuple[str, ...],
    size: int,
    skip_corrupt: bool,
) -> PictureDataset:
    counts = [len(classes[name]) for name in class_names]
    return PictureDataset(
        [path for name in class_names for path in classes[name]],
        np.repeat(np.arange(len(class_names), dtype=np.int32), counts),
        class_names,
        size,
        skip_corrupt=skip_corrupt,
    )
