from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from chainer_revive.atomic import write_atomically

# Those of ASCII and Latin-1, line ends, and what turns the direction of text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class RunError(ValueError):
    """A run's folder cannot be read; the message names the path and a remedy."""


def read_json(path: Path, remedy: str) -> Any:
    """Reads a JSON file, with control characters of its strings written out.

    So whoever prints them does not clear a terminal.

    Args:
        path (pathlib.Path): The file.
        remedy (str): What to do when it is damaged, for the error.

    Raises:
        RunError: If it cannot be read or is not JSON.
    """
    try:
        return printable(json.loads(path.read_bytes()))
    except OSError as e:
        raise RunError(
            f"{path} cannot be read ({e.strerror}): check the path and its permissions"
        ) from e
    except (ValueError, RecursionError) as e:
        raise RunError(f"{path} is not valid JSON ({e}): {remedy}") from e


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file; NaN and infinity, which JSON does not know, become null.

    Args:
        path (pathlib.Path): The file, in a folder that exists.
        content: Of JSON's types.
    """
    with write_atomically(path) as file:
        json.dump(_finite(content), file, indent=2, allow_nan=False)
        file.write("\n")


def printable(content: Any) -> Any:
    """Writes the control characters of JSON-like content out."""
    if isinstance(content, dict):
        return {printable(key): printable(value) for key, value in content.items()}
    if isinstance(content, list):
        return [printable(value) for value in content]
    if isinstance(content, str):
        return _CONTROL.sub(lambda match: repr(match[0])[1:-1], content)
    return content


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    is_number = not isinstance(content, float) or math.isfinite(content)
    return content if is_number else None
