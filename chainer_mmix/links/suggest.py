"""Finds where a network can mix."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterable

import chainer
from chainer import Link
from chainer.utils.type_check import InvalidType

from chainer_mmix.links.batch_errors import flaw_of_inputs, flaw_of_size
from chainer_mmix.links.branches import (
    Search,
    check_that_parts_meet,
    has_lengths_or_masks,
)
from chainer_mmix.links.contract import check_link
from chainer_mmix.links.graph import Trace, depend, is_array, leaves
from chainer_mmix.links.names import INPUT, is_in, links_of
from chainer_mmix.links.probe import Probe, copy_of, drawing_nothing
from chainer_mmix.links.states import data_of, is_mixable, parts_of


class _Pass:
    """A forward pass of a copy of a network, in training or in test mode."""

    def __init__(self, net: Link, inputs: tuple, train: bool) -> None:
        self.net, self._inputs = copy_of(net), inputs
        self.links = links_of(self.net)
        self.trace = Trace(inputs)
        with (
            chainer.using_config("train", train),
            chainer.using_config("use_static_graph", False),
            chainer.force_backprop_mode(),
            self.trace.watching(self.links),
        ):
            self.y = self.net(*inputs)
        self._search = Search(inputs, self.trace, len(inputs[0]))

    @functools.cached_property
    def _probe(self) -> Probe | None:
        return Probe.of(self.net, _call, self._inputs, {}, len(self._inputs[0]))

    def can_mix(self, name: str) -> bool:
        """Whether training would mix what a link returns, if it is called."""
        if name not in self.trace.outputs:
            return True
        h = self.trace.outputs[name]
        has_graph = name not in self.trace.without_graph
        if has_graph and not depend(self.y, h):
            return False
        try:
            check_that_parts_meet(leaves(self.y), parts_of(h), name, self.net)
        except RuntimeError:
            return False
        if self._search.is_bypassed(self.y, h):
            return False
        sure = has_graph and not has_lengths_or_masks(self._inputs)
        return (sure and not self._search.suspects) or self.tries_well(name)

    def tries_well(self, name: str) -> bool:
        """Whether calls of copies show no path around, as training does once."""
        return not (self._probe and self._probe.is_bypassed(name))


def _call(net: Link, *args, **kwargs):
    return net(*args, **kwargs)


def survey(net: Link, inputs: tuple) -> tuple[str, list[str]]:
    """Calls a copy of a network; see :meth:`~chainer_mmix.MixupLayers.suggest`.

    Returns:
        tuple: The table of the points, and the names of those proposed.
    """
    check_link(net, "net")
    if inputs and all(isinstance(size, int) for size in inputs):
        raise TypeError(
            f"x must be an array, not the shape {inputs}: "
            f"numpy.zeros({inputs}, numpy.float32)"
        )
    if not inputs or getattr(inputs[0], "ndim", 1) == 0:
        raise ValueError("x must be an array with one row a sample, or a tuple of them")
    n = len(inputs[0])
    with drawing_nothing(net.device):  # weights may be initialised
        try:
            test, train = (_Pass(net, inputs, train) for train in (False, True))
        except Exception as e:  # whatever the network raises
            _check_batch_axis(net, inputs, e)
            if isinstance(e, AssertionError) and (flaw := flaw_of_size(e, inputs)):
                raise ValueError(flaw) from e
            if isinstance(e, InvalidType) and (
                flaw := flaw_of_inputs(inputs, net, str(e))
            ):
                raise TypeError(flaw) from e
            raise
    links = test.links

    once = {
        k: h
        for k, h in test.trace.outputs.items()
        if test.trace.counts[k] == 1 and train.trace.counts[k] <= 1
    }
    refused = [k for k in once if not (test.can_mix(k) and train.can_mix(k))]
    points = {
        k: h for k, h in once.items() if k not in refused and is_mixable(parts_of(h), n)
    }
    called = list(test.trace.outputs)
    has_own_params = {k for k in called if any(True for _ in Link.params(links[k]))}

    def is_followed(name: str) -> bool:
        later = called[called.index(name) + 1 :]
        return not has_own_params.isdisjoint(later)

    def choose(level: list[str]) -> list[str]:
        blocks = [k for k in level if any(is_in(b, k) for b in refused)]
        if not any(is_in(b, a) for b in refused for a in points):
            blocks = _layers({k: links[k] for k in level})
        blocks = [k for k in blocks if is_followed(k)]
        last_ones = last_of_each(blocks, slice(2, None))
        if len(last_ones) == 2:  # a dilated network keeps its second size to the end
            last_ones = last_of_each(blocks, slice(1, None))
        return last_ones[:2] if len(last_ones) > 1 else blocks[:2]

    def last_of_each(blocks: list[str], axes: slice) -> list[str]:
        shapes = itertools.groupby(blocks, lambda k: leaves(points[k])[0].shape[axes])
        return [list(alike)[-1] for _, alike in shapes]

    def propose() -> list[str]:
        levels = [_outermost(points)]
        while (inner := _one_level_down(levels[-1], points)) != levels[-1]:
            levels.append(inner)
        return max(map(choose, levels), key=len)

    proposal = propose()
    while wrong := [k for k in proposal if not test.tries_well(k)]:
        for k in wrong:
            del points[k]
        proposal = propose()

    rows = [
        (k, type(links[k]).__name__, _shapes(h), f"{_n_params(links[k]):,}")
        for k, h in points.items()
    ]
    with contextlib.suppress(TypeError, ValueError):
        data = tuple(data_of(dict(enumerate(inputs)), n).values())
        rows.insert(0, (INPUT, "", _shapes(data), ""))
        proposal.insert(0, INPUT)

    return _table(rows, proposal), proposal


def _check_batch_axis(net: Link, inputs: tuple, e: Exception) -> None:
    """Raises a ValueError if the network can be called with one more axis."""
    if not all(map(is_array, inputs)):
        return
    try:
        _Pass(net, tuple(x[None] for x in inputs), False)
    except Exception:
        return
    shapes = ", ".join(str(x.shape) for x in inputs)
    raise ValueError(
        f"x is one sample, of shape {shapes}, but {type(net).__name__} takes a batch: "
        "pass x[None], or some samples of a dataset"
    ) from e


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


def _one_level_down(level: list[str], points: Iterable[str]) -> list[str]:
    inside = {k: _outermost([a for a in points if is_in(a, k)]) for k in level}
    return [b for k in level for b in inside[k] or [k]]


def _shapes(h) -> str:
    return ", ".join(str(leaf.shape) for leaf in leaves(h))


def _n_params(link: Link) -> int:
    return sum(param.size for param in link.params(include_uninit=False))
