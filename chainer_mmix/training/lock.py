from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows, where the file alone tells
    fcntl = None  # type: ignore[assignment]

from chainer_mmix.links.probe import THREAD

FILENAME = ".lock"
# Seconds. A run on another machine that has not touched its lock for so long is dead.
_BEAT = 15.0
_STALE = 120.0
_held: set[Path] = set()
_trained_in: set[Path] = set()
_taking = threading.RLock()  # by one thread at a time


class LockedError(ValueError):
    """Another run is writing into the folder."""


class RunLock:
    """Keeps a second run out of an output folder.

    The file ``.lock`` names the host and the process. On one machine, the operating
    system locks it, and unlocks it however the process ends. In a shared folder whose
    locks do not reach other machines, the age of the file tells whether the run on
    another machine is still alive; it is touched every 15 seconds.

    Args:
        out (str or path-like): The folder, which must exist.

    Raises:
        LockedError: If another run has it.
        OSError: If the file cannot be written.
    """

    def __init__(self, out: str | Path) -> None:
        self._path = Path(out).resolve() / FILENAME
        with _taking:
            if self._path in _held:
                # Not opened: closing it would unlock it for the whole process.
                raise _refusal(self._path, socket.gethostname(), os.getpid())
            self._is_locked = fcntl is not None
            self._descriptor = self._open()
            try:
                self._take_over()
            except BaseException:
                os.close(self._descriptor)
                raise
            _held.add(self._path)
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name=THREAD, daemon=True).start()

    def release(self) -> None:
        """Releases the folder for other runs. A second call does nothing."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._path.unlink(missing_ok=True)  # while it is locked
        os.close(self._descriptor)
        _held.discard(self._path)

    def _open(self) -> int:
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if fcntl is not None:
                    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                if e.errno in (errno.EACCES, errno.EAGAIN):
                    host, pid = _holder(descriptor)
                    os.close(descriptor)
                    raise _refusal(self._path, host, pid) from e
                self._is_locked = False  # the file system knows no locks
            try:
                is_same = os.path.samestat(os.fstat(descriptor), self._path.stat())
            except FileNotFoundError:
                is_same = False
            if is_same:
                return descriptor
            os.close(descriptor)  # its run has just ended

    def _take_over(self) -> None:
        host, pid = _holder(self._descriptor)
        if host is not None and (host != socket.gethostname() or not self._is_locked):
            # By the clock of the file's machine.
            touched = os.fstat(self._descriptor).st_mtime
            probe = self._path.with_name(f"{FILENAME}.{os.getpid()}")
            probe.touch()
            age = probe.stat().st_mtime - touched
            probe.unlink()
            if age < _STALE:
                raise _refusal(self._path, host, pid)
        content = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, content.encode())

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT):
            # Whoever writes a file next says what is wrong.
            with contextlib.suppress(OSError):
                os.utime(self._path)


def lock_for_run(out: str | Path) -> Callable[[], None]:
    """Locks a folder for one run at a time, within a lock that the program may have.

    Returns:
        callable: Ends it.

    Raises:
        LockedError, OSError: As :class:`RunLock`.
    """
    path = Path(out).resolve() / FILENAME
    with _taking:
        if path in _trained_in:
            raise _refusal(path, socket.gethostname(), os.getpid())
        lock = None if path in _held else RunLock(out)
        _trained_in.add(path)

    def end() -> None:
        _trained_in.discard(path)
        if lock is not None:
            lock.release()

    return end


def _refusal(path: Path, host: str | None, pid: int | None) -> LockedError:
    return LockedError(
        f"another run is writing into {path.parent} (process {pid} on {host}): wait "
        "for its end, or name another folder"
    )


def _holder(descriptor: int) -> tuple[str | None, int | None]:
    """Returns host and process that a lock names, if it does."""
    try:
        content = json.loads(os.read(descriptor, 1000))
        return str(content["host"]), int(content["pid"])
    except (ValueError, TypeError, KeyError):
        return None, None
