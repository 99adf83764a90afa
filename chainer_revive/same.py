from __future__ import annotations

from typing import Any


class Same:
    """Stands for an object in a key, and is equal only where it is the same object.

    It keeps the object alive, so that no other one can have its ``id``.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)
