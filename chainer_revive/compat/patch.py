"""A replacement in a source."""

from __future__ import annotations

from typing import NamedTuple

HERE = "chainer_revive.compat"


class Patch(NamedTuple):
    """Replace ``old``, which occurs ``count`` times, by ``new``."""

    old: str
    new: str
    count: int = 1


def with_runtime(line: str) -> Patch:
    """Imports the functions that patched code calls, as ``_mmix``, after a line."""
    return Patch(f"{line}\n", f"{line}; from {HERE} import runtime as _mmix\n")
