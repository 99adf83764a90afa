"""Proves, on the card where they will run, that the functions for a GPU compute right.

Each function gets small random arrays, and its results are compared with float64 on the
CPU (docs/gpu.md).
"""

modules: list[str] = []  # with more functions, in UNITS


def also_check(module: str) -> None:
    """Adds the functions of a module, its ``UNITS``, to those that are checked."""
    modules.append(module)
