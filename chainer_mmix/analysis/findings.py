"""Results of a measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple


class Findings(NamedTuple):
    """Numbers about a network, and files that show more.

    Attributes:
        values (mapping of float): The numbers by their names.
        files (mapping of callable): By file name, functions that write the file, called
            with its path.
    """

    values: Mapping[str, float]
    files: Mapping[str, Callable[[Path], None]] = {}
