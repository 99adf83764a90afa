"""Reads npz files of strangers: no code runs, and memory is taken for what is there."""

from __future__ import annotations

import math
import pickle
import pickletools
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar

import numpy as np
from numpy.lib import format as npy

from chainer_mmix.printable import printable

# A member of n bytes cannot be of more than this times n, by how deflate works.
_MOST = 1032
# Bytes of the header of an array, as NumPy has it, and of an array of objects.
_HEADER = 10_000
_OBJECTS = 1_000_000
# What the pickle of an array of plain objects consists of. Others make what is not
# needed, take memory that the file names, or hash what takes for ever.
_OPCODES = frozenset(
    (
        *("PROTO", "FRAME", "STOP", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
        *("MARK", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "NONE", "NEWTRUE", "NEWFALSE"),
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
        *("FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES"),
        *("SHORT_BINBYTES", "BINBYTES8", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
        *("GET", "BINGET", "LONG_BINGET"),
    )
)


class SnapshotError(ValueError):
    """A file is not a snapshot, is damaged, or belongs to another run.

    Args:
        message (str): What is wrong. Control characters, which names in a file may
            contain, are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def read_snapshot(
    path: str | Path, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, np.ndarray]:
    """Reads all arrays of a snapshot.

    Members with Python objects are read by an unpickler that knows only NumPy arrays of
    ``None``, strings and numbers.

    Args:
        path (str or path-like): A file written by
            :func:`chainer.serializers.save_npz`.
        wanted (callable): Called with the name of an array; returns whether to read it.
            By default, all arrays are read.

    Returns:
        dict: Arrays by name.

    Raises:
        SnapshotError: If the file is missing, not a snapshot or damaged, or contains
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
    """Knows the names that a pickled array of plain objects needs.

    What stands for them here is not NumPy's, whose dtypes and arrays fail in C for
    states that make no sense.
    """

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
            return _make_dtype
        if (module, name) == ("_codecs", "encode"):
            return _encode  # by which the protocol of NumPy up to 1.16 writes bytes
        raise _UnsafeError(f"a reference to {module}.{name}")

    def load_build(self) -> None:
        if not isinstance(self.stack[-2], (_Array, _Dtype)):
            raise _UnsafeError("a state of something that has none")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


class _Array:
    """An array of objects that is being unpickled."""

    array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        # The list is in C's order, whichever order the array had.
        _, shape, dtype, _, items = state
        if not isinstance(dtype, _Dtype) or not isinstance(items, list):
            raise ValueError("an array of objects has other items")
        if _count(shape) != len(items):
            raise ValueError(f"an array of shape {shape} has {len(items)} items")
        array = np.empty(len(items), object)
        for i, item in enumerate(items):
            array[i] = item
        self.array = array.reshape(shape)


class _Dtype:
    """The dtype of such an array."""

    def __setstate__(self, state: tuple) -> None:
        pass  # objects have but one


def _reconstruct(subtype: None, shape: tuple, typecode: bytes) -> _Array:
    return _Array()  # the pickle sets shape and content afterwards


def _make_dtype(name: str, *flags: object) -> _Dtype:
    if not isinstance(name, str) or not re.fullmatch("O[48]?", name):
        raise ValueError("an array of objects has another type")
    return _Dtype()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError("a text has another encoding")
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
            unpickled = _unpickle(file)
            kinds = (type(None), str, bool, int, float)
            array = unpickled.array if isinstance(unpickled, _Array) else None
            if array is None or not all(isinstance(x, kinds) for x in array.flat):
                raise _UnsafeError(f"an object of a strange type in {name}")
            return array
    with archive.open(name) as file:
        return npy.read_array(file, allow_pickle=False)


def _unpickle(file: IO[bytes]) -> Any:
    start = file.tell()
    for opcode, _, _ in pickletools.genops(file):
        if opcode.name not in _OPCODES:
            raise _UnsafeError(f"the opcode {opcode.name}")
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
