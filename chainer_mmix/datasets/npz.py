from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
from chainer.datasets import TupleDataset

from chainer_mmix.datasets.checks import check_labels

BRIGHTEST = 16  # noise on images in [0, 1] does not reach it, but those to 255 do
_KEYS = ("x", "t", "x_test", "t_test")


def get_npz(
    path: str | os.PathLike,
) -> tuple[TupleDataset, TupleDataset | None]:
    """Gets arrays from a file that :func:`numpy.savez` has written.

    Its arrays are ``x`` and ``t``, and ``x_test`` and ``t_test`` if it has a test set.
    Images ``x`` are of shape (N, C, H, W) or, if they are grey, (N, H, W); the rows of
    a table are of shape (N, D). Bytes, dtype uint8, are taken for 0 to 255 and divided
    by 255; floats are left as they are. Labels ``t`` are integers from 0, of shape
    (N,).

    Args:
        path (str or path-like): The file.

    Returns:
        tuple: The training set, a ~chainer.datasets.TupleDataset with float32 ``x`` and
        int32 labels, and the test set or ``None``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an array is missing or not as above, or only one of ``x`` and
            ``x_test`` is in [0, 1].
    """
    path = Path(path).expanduser()
    arrays = read_npz(path)
    n_class = _count_classes(arrays["t"], f"t of {path}")
    train = _make_dataset(arrays["x"], arrays["t"], n_class, path, "")
    if "x_test" not in arrays:
        return train, None
    test = _make_dataset(arrays["x_test"], arrays["t_test"], n_class, path, "_test")
    if train[0][0].shape != test[0][0].shape:
        raise ValueError(
            f"{path} has training examples of shape {train[0][0].shape} and test "
            f"examples of shape {test[0][0].shape}: make them the same"
        )
    low, high = sorted(x.max() for x in (train._datasets[0], test._datasets[0]))
    if train[0][0].ndim == 3 and low <= 1 and high > BRIGHTEST:
        raise ValueError(
            f"{path} has x and x_test of other scales, one to {low:g} and one to "
            f"{high:g}: divide those images by 255"
        )
    return train, test


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a file as :func:`get_npz` takes it, and checks their names.

    Args:
        path (pathlib.Path): The file.

    Returns:
        dict: ``x`` and ``t``, and ``x_test`` and ``t_test`` if there is a test set.

    Raises:
        FileNotFoundError, ValueError: As :func:`get_npz`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: save x and t by numpy.savez")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not what numpy.savez writes, or was cut short: save x and t by "
            "numpy.savez"
        )
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = list(file)
            for key in _KEYS:
                if key in keys:
                    arrays[key] = file[key]
    except ValueError as e:  # NumPy's says how to unpickle, which runs code in the file
        raise ValueError(
            f"{key} of {path} holds objects, not numbers: save numbers, in rows of the "
            "same length"
        ) from e
    except (TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise ValueError(
            f"{path} is damaged ({e}): save x and t by numpy.savez again"
        ) from e
    for key, other in (("x", "t"), ("t", "x"), ("x_test", "t_test")):
        has_pair = key in arrays and other in arrays
        if not has_pair and (key in "xt" or key in arrays or other in arrays):
            missing = other if key in arrays else key
            raise ValueError(
                f"{path} has no array {missing!r}, only {', '.join(keys) or 'none'}: "
                "save x and t, and x_test and t_test if there is a test set"
            )
    return arrays


def _count_classes(t: np.ndarray, name: str) -> int:
    if t.ndim == 2 and t.shape[1] > 1:
        raise ValueError(
            f"{name} has shape {t.shape}, as one-hot labels have: save t.argmax(axis=1)"
        )
    if t.ndim != 1 or not np.issubdtype(t.dtype, np.integer) or not len(t):
        raise ValueError(
            f"{name} has shape {t.shape} and dtype {t.dtype}: give one class number an "
            "example, integers of shape (N,)"
        )
    present = np.unique(t)
    if present[0] != 0:
        raise ValueError(
            f"{name} has labels from {present[0]} to {present[-1]}: number the classes "
            "from 0, as t - t.min()"
        )
    n_class = int(present[-1]) + 1
    if len(present) < n_class:
        absent = min(set(range(n_class)) - set(present.tolist()))
        raise ValueError(
            f"{name} has labels up to {n_class - 1} but none is {absent}: number the "
            "classes without gaps, as numpy.unique(t, return_inverse=True)[1]"
        )
    if n_class < 2:
        raise ValueError(f"{name} has one class only: give two or more")
    return n_class


def _make_dataset(
    x: np.ndarray, t: np.ndarray, n_class: int, path: Path, suffix: str
) -> TupleDataset:
    inputs = as_inputs(x, f"x{suffix} of {path}")
    labels = check_labels(x, t, n_class, f"{path}, x{suffix} and t{suffix},")
    return TupleDataset(inputs, labels)


def as_inputs(x: np.ndarray, name: str) -> np.ndarray:
    """Makes inputs of an array, as :func:`get_npz` does.

    Args:
        x (numpy.ndarray): Of shape (N, C, H, W), (N, H, W) or (N, D).
        name (str): What the errors call it.

    Returns:
        numpy.ndarray: float32, of shape (N, C, H, W) or (N, D).

    Raises:
        ValueError: If it is not as :func:`get_npz` says.
    """
    if x.ndim not in (2, 3, 4):
        raise ValueError(
            f"{name} has shape {x.shape}: make it (N, C, H, W), (N, H, W) or (N, D)"
        )
    if x.ndim == 4 and x.shape[1] not in (1, 3, 4) and x.shape[3] in (1, 3, 4):
        raise ValueError(
            f"{name} has shape {x.shape}, channels last: save x.transpose(0, 3, 1, 2)"
        )
    if not x.size:
        raise ValueError(
            f"{name} is empty, of shape {x.shape}: give at least one input"
        )
    if x.ndim == 3:
        x = x[:, None]
    if x.dtype == np.uint8:
        return x.astype(np.float32) / np.float32(255)
    if x.dtype.kind != "f":
        raise ValueError(
            f"{name} has dtype {x.dtype}: save images as uint8, 0 to 255, and all else "
            "as float32"
        )
    with np.errstate(over="ignore"):
        inputs = x.astype(np.float32, copy=False)
    if not np.isfinite(inputs).all():
        raise ValueError(
            f"{name} has values that are not finite in float32: replace them"
        )
    if x.ndim == 4 and x.min() >= 0 and x.max() > 1 and np.all(x == np.rint(x)):
        raise ValueError(
            f"{name} has whole numbers from {x.min():g} to {x.max():g} in {x.dtype}: "
            "divide them by the value that is white, which is 255 for bytes; bytes may "
            "be saved as uint8 instead"
        )
    return inputs
