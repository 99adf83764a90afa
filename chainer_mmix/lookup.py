from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def lookup(table: Mapping[str, T], name: str, kind: str) -> T:
    """Finds an entry by name, or tells the names that are near.

    Args:
        table (mapping): Entries by name.
        name (str): The name wanted.
        kind (str): What the error calls an entry, such as ``"dataset"``.

    Returns:
        The entry.

    Raises:
        ValueError: If there is none of that name.
    """
    if name in table:
        return table[name]
    typed = name.lower()
    near = [entry for entry in table if _abbreviates(typed, entry)][:3]
    near = near or difflib.get_close_matches(typed, table, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"unknown {kind} {name!r}: {hint}there are {', '.join(table)}")


def _abbreviates(short: str, name: str) -> bool:
    """Tells whether letters were left out of a name, as in val/acc."""
    rest = iter(name)
    return len(short) > 2 and all(letter in rest for letter in short)
