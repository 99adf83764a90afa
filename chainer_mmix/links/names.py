"""The names of a network's links, and of its input.

They are the paths of ``namedlinks``, but a layer of a :class:`chainer.Sequential` has
its position in brackets, as in ``"layers[2]/conv"``: Chainer numbers the links in one,
for files, in an order that is not that of the layers.
"""

from __future__ import annotations

import difflib
import operator
from typing import Any

import numpy as np
from chainer import ChainList, Link, Sequential

INPUT = "input"


def names_of(net: Link, layers) -> tuple[str, ...]:
    """Returns the names of the layers that a user chose, after checking them.

    Args:
        net (~chainer.Link): The network.
        layers: As for :class:`~chainer_mmix.MixupLayers`.

    Raises:
        TypeError: If it is one string, or a layer is neither a name nor a position.
        ValueError: If there is none, or no such link, or a name comes twice.
    """
    links = links_of(net)
    if callable(layers):
        layers = [name for name, link in links.items() if layers(name, link)]
    elif isinstance(layers, str):
        raise TypeError(f"layers must be a list of names: [{layers!r}]")
    layers = tuple(_name_of(layer, links, net) for layer in layers)
    if not layers:
        raise ValueError(
            f"layers chooses none of {listed([INPUT, *links])}: name some of them, as "
            "MixupLayers.suggest(net, x) does"
        )
    for name in layers:
        if layers.count(name) > 1:
            raise ValueError(f"{name!r} comes twice in layers, {layers}: leave one out")
        if name != INPUT:
            _check_name(name, links, net)
        elif INPUT in links:
            raise ValueError(
                f"'input' is the input of the network, but {type(net).__name__} has a "
                "link of that name too: rename it to mix at either"
            )
    return layers


def links_of(net: Link) -> dict[str, Link]:
    """Returns all links of a network by their names."""
    return {shown: link for shown, link in _shown(net).values()}


def _shown(net: Link) -> dict[str, tuple[str, Link]]:
    """Returns each link and its name here, by its path in Chainer."""
    links = {path[1:]: link for path, link in net.namedlinks(skipself=True) if path}
    root = _root(net)
    found: dict[str, tuple[str, Link]] = {}
    positions: dict[str, dict[int, int]] = {}
    for path, link in links.items():
        parent, _, name = path.rpartition("/")
        start, owner = found.get(parent, (parent, root))
        shown = f"{start}/{name}" if start else name
        if isinstance(owner, Sequential):
            if parent not in positions:
                layers = list(enumerate(owner))[::-1]  # the first of the same counts
                positions[parent] = {id(layer): i for i, layer in layers}
            if id(link) in positions[parent]:
                shown = f"{start}[{positions[parent][id(link)]}]"
        found[path] = shown, link
    return found


def _name_of(layer: Any, links: dict[str, Link], net: Link) -> str:
    """Returns the name of a layer that is given by a name or by its position."""
    if isinstance(layer, str):
        return _unambiguous(layer, links, net)
    if isinstance(layer, (int, np.integer)) and not isinstance(layer, bool):
        return _at(operator.index(layer), links, net)
    raise TypeError(
        f"{layer!r} is not a name. There are {listed([INPUT, *links])}: give one of "
        "these"
    )


def _at(index: int, links: dict[str, Link], net: Link) -> str:
    name = type(net).__name__
    if not isinstance(net, ChainList):
        raise TypeError(
            f"{index} is not a name. There are {listed([INPUT, *links])}; a position "
            f"is for a list of layers, and {name} is none: give one of these"
        )
    if not -len(net) <= index < len(net):
        raise ValueError(f"{name} has no layer {index}, only {len(net)} layers")
    layer = net[index]
    shown = next((k for k, link in links.items() if link is layer), None)
    if shown is None:
        earlier = {id(layer) for layer in list(net)[: index % len(net)]}
        before = [k for k, link in links.items() if id(link) in earlier]
        raise ValueError(
            f"layer {index} of {name} is a function, {layer!r}, which has no name "
            f"here: choose a link before it ({listed(before) or 'there is none'})"
        )
    return shown


def _unambiguous(name: str, links: dict[str, Link], net: Link) -> str:
    """Returns the name here of a name with Chainer's numbers in it.

    Raises:
        ValueError: If the number is not the link's position.
    """
    if name in links or name == INPUT:
        return name
    shown, link = _shown(net).get(name, (name, None))
    if link is None:
        return name  # of no link
    # Each number as a position.
    owner, at = _root(net), ""
    for part in name.split("/"):
        is_list = isinstance(owner, ChainList) and part.isdigit()
        if isinstance(owner, Sequential):
            at += f"[{part}]"
        else:
            at = f"{at}/{part}" if at else part
        if is_list:
            owner = owner[int(part)] if int(part) < len(owner) else None
        else:
            owner = getattr(owner, part, None)
    if owner is link:
        return shown
    there = f", and {at!r} for the layer at that position" if owner is not None else ""
    raise ValueError(
        f"{name!r} is the name that Chainer gives to the layer at {shown!r}, for it "
        f"numbers the links of a Sequential in another order than the layers: write "
        f"{shown!r} for that layer{there}"
        + ("" if "/" in name else "; a position as in seq[i] will do too")
    )


def _root(net: Link) -> Any:
    """Returns the link whose children the first names are: a wrapper's network."""
    return next((one for path, one in net.namedlinks(skipself=True) if not path), net)


def _check_name(name: str, links: dict[str, Link], net: Link) -> None:
    if name in links:
        return
    parent = name
    while parent and parent not in links:
        parent = _parent(parent)
    if name.startswith("/"):
        raise ValueError(f"{name!r} begins with a slash: leave it out")
    owner = links.get(parent, net)
    child = name[len(parent) :].lstrip("/").partition("/")[0].partition("[")[0]
    if child and callable(getattr(owner, child, None)):
        raise ValueError(
            f"{name!r} of {type(net).__name__} is a function, not a link, and has no "
            "name here: name the link before it"
        )
    close = difflib.get_close_matches(name, [*links, INPUT])
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    siblings = [k for k in links if _parent(k) == parent]
    raise ValueError(
        f"{type(net).__name__} has no link {name!r}.{hint} In "
        f"{repr(parent) if parent else 'it'} there are {listed(siblings) or 'none'}"
    )


def listed(names) -> str:
    """Writes names for an error, the first 30 of many."""
    names = [repr(name) for name in names]
    return ", ".join(names if len(names) <= 30 else [*names[:30], "..."])


def is_in(name: str, other: str) -> bool:
    """Whether a link lies in another one, by their names."""
    return name.startswith((f"{other}/", f"{other}["))


def _parent(name: str) -> str:
    return name[: max(name.rfind("/"), name.rfind("["), 0)]
