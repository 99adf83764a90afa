"""Reads npz files of strangers: no code runs, and memory is taken for what is there."""

from __future__ import annotations

import math
import pickle
import pickletools
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar

import numpy as np
from numpy.lib import format as npy

# A member of n bytes cannot be of more than this times n, by how deflate works.
_MOST = 1032
# Bytes of the header of an array, as NumPy has it, and of an array of objects.
_HEADER = 10_000
_OBJECTS = 1_000_000


class SnapshotError(ValueError):
    """A file is not a snapshot, is damaged, or is that of another run."""


def read_snapshot(
    path: str | Path, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, np.ndarray]:
    """Reads all arrays of a snapshot.

    Members with Python objects are unpickled by an unpickler that knows nothing but
    NumPy arrays of ``None``, strings and numbers.

    Args:
        path (str or path-like): A file that :func:`chainer.serializers.save_npz` has
            written.
        wanted (callable): Which arrays to read, by their names. The default is all.

    Returns:
        dict: Arrays by name.

    Raises:
        SnapshotError: If the file is missing, is no snapshot, is damaged, or has
            objects of another kind.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive)
            return {
                name: _read_array(archive, member)
                for member in archive.namelist()
                if wanted(name := member.removesuffix(".npy"))
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
        MemoryError,
        RuntimeError,
        SyntaxError,
        tokenize.TokenError,
    ) as e:
        raise SnapshotError(
            f"{path} is not a snapshot or another file of save_npz, or is cut off or "
            f"damaged ({e}): take another one"
        ) from e
    except OSError as e:
        raise SnapshotError(f"{path} cannot be read ({e.strerror})") from e


def _check_members(archive: zipfile.ZipFile) -> None:
    """Checks what the archive says of its members before any is read."""
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise ValueError("two of its members have one name")
    for member in archive.infolist():
        name = PurePosixPath(member.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in member.filename:
            raise ValueError(f"the name {member.filename!r} leads out of it")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is compressed as no snapshot is")
        if member.file_size > _MOST * member.compress_size + _HEADER:
            raise ValueError(
                f"{name} says that it has {member.file_size} bytes, more than can be "
                f"in {member.compress_size}"
            )


class _UnsafeError(Exception):
    pass


# The one in Python, which takes no memory for indices that a file names; typeshed does
# not know its insides.
_PythonUnpickler: Any = pickle._Unpickler


class _Unpickler(_PythonUnpickler):
    """Knows the names that a pickled array of plain objects needs."""

    dispatch: ClassVar = dict(_PythonUnpickler.dispatch)

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
        if (module, name) == ("_codecs", "encode"):
            return _encode  # by which the protocol of NumPy up to 1.16 writes bytes
        raise _UnsafeError(f"a reference to {module}.{name}")

    def load_build(self) -> None:
        state, array = self.stack[-1], self.stack[-2]
        if isinstance(array, np.ndarray) and _count(state[1]) != len(state[4]):
            raise ValueError(f"an array of shape {state[1]} has {len(state[4])} items")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


def _reconstruct(subtype: None, shape: tuple, typecode: bytes) -> np.ndarray:
    # The pickle sets shape and content afterwards.
    return np.empty(0, np.int8)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _UnsafeError(f"a text in {encoding}")
    return text.encode("latin1")


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    size = archive.getinfo(name).file_size
    with archive.open(name) as file:
        shape, _, dtype = _header(file)
        if not dtype.hasobject:
            if size - file.tell() != _count(shape) * dtype.itemsize:
                raise ValueError(
                    f"{name} has {size - file.tell()} bytes, not those of {shape} "
                    f"numbers of {dtype.itemsize}"
                )
        elif size > _OBJECTS:
            raise ValueError(f"{name} has {size} bytes of objects")
        else:
            array = _unpickle(file)
            kinds = (type(None), str, bool, int, float)
            if not isinstance(array, np.ndarray) or not all(
                isinstance(item, kinds) for item in array.flat
            ):
                raise _UnsafeError(f"an object of a strange type in {name}")
            return array
    with archive.open(name) as file:
        return npy.read_array(file, allow_pickle=False)


def _unpickle(file: IO[bytes]) -> Any:
    start = file.tell()
    for opcode, _, _ in pickletools.genops(file):
        # It would take the memory that the file names.
        if opcode.name == "BYTEARRAY8":
            raise _UnsafeError("bytes of a kind that is not needed")
    file.seek(start)
    return _Unpickler(file).load()


def _count(shape: tuple) -> int:
    """Returns how many items an array has, without an overflow."""
    if any(n < 0 for n in shape):
        raise ValueError(f"a shape of {shape}")
    return math.prod(map(int, shape))


def _header(file: IO[bytes]) -> tuple:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of NumPy's file format")
    is_first, start = version == (1, 0), file.tell()
    length = int.from_bytes(file.read(2 if is_first else 4), "little")
    if length > _HEADER:
        raise ValueError(f"a header of {length} bytes")
    file.seek(start)
    read = npy.read_array_header_1_0 if is_first else npy.read_array_header_2_0
    return read(file)
