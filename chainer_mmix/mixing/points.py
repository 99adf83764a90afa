"""Mixing points: the places of a network, by number or name, where it can mix."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import SupportsIndex

import numpy as np

Point = int | str


def as_points(layer_mix: Point | Sequence[Point] | None) -> tuple[Point, ...] | None:
    """Returns the mixing points that a user chose, ``None`` for the network's own.

    Raises:
        TypeError: If one is neither an integer nor a string.
        ValueError: If there are none.
    """
    if layer_mix is None:
        return None
    points: list = [layer_mix]
    if isinstance(layer_mix, Iterable) and not isinstance(layer_mix, str):
        points = list(layer_mix)
    for point in points:
        if isinstance(point, bool) or not isinstance(point, (int, np.integer, str)):
            raise TypeError(f"a mixing point is an integer or a name, not {point!r}")
    if not points:
        raise ValueError("layer_mix is empty: name a mixing point, or pass None")
    return tuple(p if isinstance(p, str) else int(p) for p in points)


def resolve(
    layer_mix: Point | None,
    points: Sequence[Point],
    owner: object,
    default: Sequence[Point] | None = None,
) -> Point:
    """Returns a mixing point as its network calls it.

    Args:
        layer_mix (int or str): The point or, if all points are names, its index;
            ``None`` draws one from :mod:`numpy.random`.
        points: All mixing points of the network.
        owner: The network, for the error.
        default: The points drawn from, all of them by default.

    Raises:
        ValueError: If the network has no such point.
    """
    if layer_mix is None and points:
        return (default or points)[np.random.randint(len(default or points))]
    if layer_mix is not None and layer_mix in points:
        return layer_mix
    named = all(isinstance(point, str) for point in points)
    if named and isinstance(layer_mix, SupportsIndex):
        index = operator.index(layer_mix)
        if 0 <= index < len(points):
            return points[index]
    raise ValueError(
        f"{type(owner).__name__} has no mixing point {layer_mix!r}; it has "
        f"{', '.join(map(repr, points)) or 'none'}"
    )
