"""Keeps the machine code of loops on disk, so that later processes need no Numba.

Code is kept for one processor, one version of each thing that makes it, and one state
of the sources. It is run only if nobody could have written it who could not have
written this file as well.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import stat
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import FunctionType

import numpy as np

from chainer_revive.atomic import write_atomically
from chainer_revive.cpu.numba.processor import processor
from chainer_revive.user_cache import user_cache

SUPPORTED = (
    sys.platform == "linux"
    and platform.machine() == "x86_64"
    and sys.maxsize > 1 << 32
    and "flags" in processor()
)
_HERE = Path(__file__).parent
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def can_keep(function: FunctionType) -> bool:
    """Tells whether a function's code can be kept: on Linux and x86-64, from files."""
    return SUPPORTED and bool(sources()) and _source(_file(function)) is not None


def read(function: FunctionType) -> bytes | None:
    """Returns what was kept of a function; ``None`` if there is nothing of use."""
    stamp = _stamp(function)
    for folder in _folders():
        with contextlib.suppress(OSError):
            if not _is_ours(folder.lstat()):
                continue
            data = _read(folder / _name(function))
            if data.startswith(hashlib.sha256(stamp + data[len(stamp) :]).digest()):
                return data[len(stamp) :]
    return None


def write(function: FunctionType, code: bytes) -> None:
    """Keeps the code of a function in the first folder that can be written.

    Code of no bytes stands for a function that only Numba can load.
    """
    digest = hashlib.sha256(_stamp(function) + code).digest()
    for folder in _folders():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not _is_ours(folder.lstat()):
                continue
            with write_atomically(folder / _name(function), "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(digest + code)
            return
    _warn()


@functools.cache
def _warn() -> None:
    warnings.warn(
        "each process compiles its loops, as it finds no folder to keep them that is "
        "this user's alone: set NUMBA_CACHE_DIR to one",
        stacklevel=2,
    )


def named(function: FunctionType) -> FunctionType:
    """Gives a function the name under which Numba itself keeps its code.

    Numba looks at its own version, the processor and the file of the function, but not
    at functions and intrinsics of other files.
    """
    function.__qualname__ += f"_{sources()[:16]}"
    return function


@functools.cache
def sources() -> str:
    """Names the state of the files that loops are compiled from; "" without files."""
    digest = hashlib.sha256()
    paths = sorted(_HERE.glob("*.py"))
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest() if paths else ""


@functools.cache
def _source(path: str) -> bytes | None:
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except OSError:
        return None


def _file(function: FunctionType) -> str:
    return function.__code__.co_filename


def _name(function: FunctionType) -> str:
    return f"{function.__module__}.{function.__name__}"


def _stamp(function: FunctionType) -> bytes:
    """Returns what must not have changed."""
    where = f"{_name(function)} {function.__code__.co_firstlineno}"
    stamp = f"{where} {sources()} ".encode() + _source(_file(function))
    return hashlib.sha256(stamp).digest()


@functools.cache
def _surroundings() -> str:
    """Names what code is made by and for, and this installation."""
    settings = sorted(
        (name, value)
        for name, value in os.environ.items()
        if name.startswith("NUMBA_") and name != "NUMBA_CACHE_DIR"
    )
    makers = version("numba"), version("llvmlite"), np.__version__, sys.version
    named = repr((makers, processor(), settings, str(_HERE)))
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def _folders() -> Iterator[Path]:
    """Yields where code may be: beside the sources as theirs, or the user's own."""
    folder = f"chainer_revive-{_surroundings()}"
    if asked := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(asked) / folder
        return
    yield _HERE / "__pycache__" / folder
    if cache := user_cache():
        yield cache / folder


def _read(path: Path) -> bytes:
    """Reads a file that nobody else could have written."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        if not _is_ours(os.fstat(file.fileno())):
            raise PermissionError(path)
        return file.read()


def _is_ours(found: os.stat_result) -> bool:
    owners = 0, os.geteuid(), _HERE.stat().st_uid
    return found.st_uid in owners and not (
        stat.S_ISLNK(found.st_mode) or found.st_mode & _OTHERS_WRITE
    )
