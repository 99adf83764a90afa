from __future__ import annotations

import re
from typing import Any

# Those of ASCII and Latin-1, line ends, and what turns the direction of text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(content: Any) -> Any:
    r"""Escapes control characters, so that text of others cannot change a terminal.

    Args:
        content: A string, or dicts and lists of any depth with strings in them. What is
            neither stays as it is.

    Returns:
        The same, with ``\x1b`` in place of an escape character, for example.
    """
    if isinstance(content, dict):
        return {printable(key): printable(value) for key, value in content.items()}
    if isinstance(content, list):
        return [printable(value) for value in content]
    if isinstance(content, str):
        return _CONTROL.sub(lambda match: repr(match[0])[1:-1], content)
    return content
