"""Finds where a network can mix."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable

import chainer
import numpy as np
from chainer import Link

from chainer_mmix.links.graph import Trace, leaves
from chainer_mmix.links.names import INPUT, is_in, links_of
from chainer_mmix.links.states import is_data, is_mixable, parts_of


def survey(net: Link, inputs: tuple) -> tuple[str, list[str]]:
    """Calls a copy of a network; see :meth:`~chainer_mmix.MixupLayers.suggest`.

    Returns:
        tuple: The table of the places, and the names of those proposed.
    """
    net = copy.deepcopy(net)
    n = len(inputs[0])
    links = links_of(net)
    trace = Trace(inputs)
    random_state = np.random.get_state()  # weights may be initialised
    with (
        chainer.using_config("train", False),
        chainer.force_backprop_mode(),
        trace.watching(links),
    ):
        y = net(*inputs)
    np.random.set_state(random_state)

    once = {k: h for k, h in trace.outputs.items() if trace.counts[k] == 1}
    bypassed = [k for k, h in once.items() if trace.is_bypassed(y, h, n)]
    places = {
        k: h
        for k, h in once.items()
        if k not in bypassed and is_mixable(parts_of(h), n)
    }
    rows = [
        (k, type(links[k]).__name__, _shapes(h), f"{_n_params(links[k]):,}")
        for k, h in places.items()
    ]
    proposal = []
    data = tuple(filter(is_data, inputs))
    if is_mixable(data, n):
        rows.insert(0, (INPUT, "", _shapes(data), ""))
        proposal = [INPUT]

    called = list(trace.outputs)
    has_own_params = {k for k in called if any(True for _ in Link.params(links[k]))}

    def is_followed(name: str) -> bool:
        later = called[called.index(name) + 1 :]
        return not has_own_params.isdisjoint(later)

    def choose(level: list[str]) -> list[str]:
        blocks = [k for k in level if k in branching]
        if not branching:
            blocks = _layers({k: links[k] for k in level})
        blocks = [k for k in blocks if is_followed(k)]
        sizes = itertools.groupby(blocks, lambda k: leaves(places[k])[0].shape[2:])
        last_ones = [list(same_size)[-1] for _, same_size in sizes]
        return last_ones[:2] if len(last_ones) > 1 else blocks[:2]

    branching = {a for a in places if any(is_in(b, a) for b in bypassed)}
    levels = [_outermost(places)]
    while (inner := _one_level_down(levels[-1], places)) != levels[-1]:
        levels.append(inner)
    proposal += max(map(choose, levels), key=len)
    return _table(rows, proposal), proposal


def _table(rows: list[tuple], proposal: list[str]) -> str:
    rows = [("*" if row[0] in proposal else " ", *row) for row in rows]
    rows.insert(0, (" ", "name", "link", "output", "parameters"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row[:-1], widths)) for row in rows)
    return "\n".join(
        f"{line}  {row[-1]:>{widths[-1]}}"
        for line, row in zip(lines, rows, strict=True)
    )


def _layers(links: dict[str, Link]) -> list[str]:
    """Of links that follow each other, returns the last before each with weights.

    What has no weights, such as a batch normalisation, belongs to what it follows.
    """
    layers: list[str] = []
    for name, link in links.items():
        if any(param.ndim > 1 for param in link.params(include_uninit=False)):
            layers.append(name)
        elif layers:
            layers[-1] = name
    return layers


def _outermost(names: Iterable[str]) -> list[str]:
    return [a for a in names if not any(is_in(a, b) for b in names)]


def _one_level_down(level: list[str], places: Iterable[str]) -> list[str]:
    inside = {k: _outermost([a for a in places if is_in(a, k)]) for k in level}
    return [b for k in level for b in inside[k] or [k]]


def _shapes(h) -> str:
    return ", ".join(str(leaf.shape) for leaf in leaves(h))


def _n_params(link: Link) -> int:
    return sum(param.size for param in link.params(include_uninit=False))
