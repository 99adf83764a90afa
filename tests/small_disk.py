"""A disk of a few megabytes, to be filled up."""

import contextlib
import os
import pathlib
import subprocess
import sys


@contextlib.contextmanager
def small_disk(folder, size):
    """Mounts an empty tmpfs on a folder.

    Args:
        folder (path-like): The folder, which must exist.
        size (int): Bytes.

    Raises:
        OSError: Where that is not possible: it takes Linux and root.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        raise OSError("a tmpfs takes Linux and root")
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", os.fspath(folder)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True)
    if mounted.returncode != 0:
        raise OSError(mounted.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", os.fspath(folder)], check=True)


@contextlib.contextmanager
def fill(folder, room):
    """Fills the disk that a folder is on but for some bytes, and frees it again."""
    disk = os.statvfs(folder)
    size = disk.f_bavail * disk.f_frsize - room
    filler = pathlib.Path(folder, "filler")
    with filler.open("wb") as file:
        if size > 0:
            os.posix_fallocate(file.fileno(), 0, size)
    try:
        yield
    finally:
        filler.unlink()
