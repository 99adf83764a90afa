from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from chainer_mmix.printable import printable
from chainer_revive.atomic import write_atomically


class RunError(ValueError):
    """Something is wrong with a run's folder; the message names it and a remedy."""


def read_json(path: Path, remedy: str) -> Any:
    """Reads a JSON file, and escapes the control characters in its strings.

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


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    is_number = not isinstance(content, float) or math.isfinite(content)
    return content if is_number else None
