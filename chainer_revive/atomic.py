from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Opens a file that appears under its name only when it is complete.

    The text or bytes go to a temporary file in the same directory, which then replaces
    ``path``. When the block raises, ``path`` stays as it was.

    Args:
        path (str or path-like): The file to write. Its directory must exist.
        mode (str): ``"w"`` for UTF-8 text, the default, or ``"wb"`` for bytes.

    Yields:
        The open file.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
