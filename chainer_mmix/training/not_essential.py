from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def not_essential(path: Path) -> Iterator[None]:
    """Warns when the ``with`` block cannot write a file that a run can do without.

    Args:
        path (pathlib.Path): The file.
    """
    try:
        yield
    except OSError as e:
        print(f"warning: {path} was not written ({e.strerror})", file=sys.stderr)
