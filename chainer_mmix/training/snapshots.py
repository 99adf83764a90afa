from __future__ import annotations

import pickle
import re
import zipfile
import zlib
from pathlib import Path
from typing import IO

import chainer
import numpy as np
from chainer.serializers import NpzDeserializer
from numpy.lib import format as npy

_NAME = re.compile(r"snapshot_iter_(\d+)")


class SnapshotError(ValueError):
    """A file is not a snapshot, is damaged, or is that of another run."""


def find_snapshot(out: str | Path) -> Path | None:
    """Finds the newest snapshot in a folder, the one of the most iterations.

    Args:
        out (str or path-like): The folder.

    Returns:
        pathlib.Path: The snapshot, or ``None`` if there is none.
    """
    out = Path(out)
    found = {
        int(match[1]): path
        for path in (out.iterdir() if out.is_dir() else ())
        if (match := _NAME.fullmatch(path.name))
    }
    return found[max(found)] if found else None


def load_snapshot(path: str | Path, trainer: chainer.training.Trainer) -> None:
    """Restores a Trainer from its snapshot.

    Unlike :func:`chainer.serializers.load_npz`, it runs no code from the file, and it
    takes arrays only of the shapes that the Trainer has, without broadcasting.

    Args:
        path (str or path-like): The snapshot.
        trainer (~chainer.training.Trainer): A Trainer made as the one that was saved.
            After an error its state is undefined.

    Raises:
        SnapshotError: If the file is no snapshot, or not of such a Trainer.
    """
    members = read_snapshot(path)
    deserializer = _StrictDeserializer(members)
    try:
        deserializer.load(trainer)
    except KeyError as e:
        raise _another(path, f"it lacks {_last(e.args[0])}") from e
    except (TypeError, ValueError, AttributeError) as e:
        raise _another(path, str(e)) from e
    if deserializer.missing:
        raise _another(path, f"it lacks {_last(min(deserializer.missing))}")
    left = [
        key
        for key in members
        if key.startswith("updater/") and key not in deserializer.used
    ]
    if left:
        raise _another(path, f"it also has {_last(left[0])}")


def read_snapshot(path: str | Path) -> dict[str, np.ndarray]:
    """Reads all arrays of a snapshot.

    Members with Python objects are unpickled by an unpickler that knows nothing but
    NumPy arrays of ``None``, strings and numbers.

    Args:
        path (str or path-like): A file that :func:`chainer.serializers.save_npz` has
            written.

    Returns:
        dict: Arrays by name.

    Raises:
        SnapshotError: If the file is missing, is no snapshot, is damaged, or has
            objects of another kind.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                name.removesuffix(".npy"): _read_array(archive, name)
                for name in archive.namelist()
            }
    except FileNotFoundError as e:
        raise SnapshotError(f"there is no snapshot {path}") from e
    except _UnsafeError as e:
        raise SnapshotError(
            f"{path} contains {e}, which could run code and which no snapshot needs: "
            "it was not loaded; get the file from a source you trust"
        ) from e
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        NotImplementedError,
        pickle.UnpicklingError,
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
    ) as e:
        raise SnapshotError(
            f"{path} is not a snapshot, or is cut off or damaged ({e}): give another "
            "one to --resume"
        ) from e
    except OSError as e:
        raise SnapshotError(f"{path} cannot be read ({e.strerror})") from e


class _UnsafeError(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    """Knows the names that a pickled array of plain objects needs."""

    def find_class(self, module: str, name: str):
        # NumPy 1 writes numpy.core, NumPy 2 numpy._core.
        if (module, name) in (
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        ):
            return _reconstruct
        if (module, name) == ("numpy", "ndarray"):
            return None  # the first argument of _reconstruct, of no use
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        raise _UnsafeError(f"a reference to {module}.{name}")


def _reconstruct(subtype: None, shape: tuple, typecode: bytes) -> np.ndarray:
    # The pickle sets shape and content afterwards.
    return np.empty(0, np.int8)


class _StrictDeserializer(NpzDeserializer):
    """Refuses another shape, which NumPy would broadcast; notes what was read."""

    def __init__(self, npz, path="", used=None, missing=None):
        super().__init__(npz, path)
        self.used = set() if used is None else used
        self.missing = set() if missing is None else missing

    def __getitem__(self, key):
        path = f"{self.path}{key.strip('/')}/"
        return type(self)(self.npz, path, self.used, self.missing)

    def __call__(self, key, value):
        name = self.path + key.lstrip("/")
        # Snapshots of earlier versions have none, which the iterators know.
        if name not in self.npz and key != "example_draws":
            self.missing.add(name)
        saved = self.npz[name]
        self.used.add(name)
        shape = getattr(value, "shape", None)
        if shape is not None and shape != saved.shape and saved[()] is not None:
            raise ValueError(f"its {_last(name)} has shape {saved.shape}, not {shape}")
        return super().__call__(key, value)


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as file:
        if _header(file)[2].hasobject:
            array = _Unpickler(file).load()
            kinds = (type(None), str, bool, int, float)
            if not isinstance(array, np.ndarray) or not all(
                isinstance(item, kinds) for item in array.flat
            ):
                raise _UnsafeError(f"an object of a strange type in {name}")
            return array
    with archive.open(name) as file:
        return npy.read_array(file, allow_pickle=False)


def _header(file: IO[bytes]) -> tuple:
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    if version == (2, 0):
        return npy.read_array_header_2_0(file)
    raise ValueError(f"version {version} of NumPy's file format")


def _another(path: str | Path, reason: str) -> SnapshotError:
    return SnapshotError(
        f"{path} is the snapshot of another model or setting ({reason}): resume with "
        "the arguments of the run that wrote it"
    )


def _last(key: str) -> str:
    return key.removeprefix("updater/").removeprefix("model:main/")
