"""The names of a network's links, and of its input."""

from __future__ import annotations

import difflib

from chainer import Link

INPUT = "input"


def names_of(net: Link, layers) -> tuple[str, ...]:
    links = links_of(net)
    if callable(layers):
        layers = [name for name, link in links.items() if layers(name, link)]
    elif isinstance(layers, str):
        raise TypeError(f"layers must be a list of names: [{layers!r}]")
    layers = tuple(layers)
    if not layers:
        raise ValueError(f"layers chooses none of 'input', {listed(links)}")
    for name in layers:
        if not isinstance(name, str):
            raise TypeError(
                f"{name!r} is not a name. There are 'input', {listed(links)}"
            )
        if layers.count(name) > 1:
            raise ValueError(f"{name!r} comes twice in layers: {layers}")
        if name != INPUT:
            _check_name(name, links, net)
        elif INPUT in links:
            raise ValueError(
                f"'input' is the input of the network, but {type(net).__name__} has a "
                "link of that name too: rename it to mix at either"
            )
    return layers


def links_of(net: Link) -> dict[str, Link]:
    named = net.namedlinks(skipself=True)
    return {
        path[1:]: link for path, link in named if path
    }  # MixupLayers has an empty one


def _check_name(name: str, links: dict[str, Link], net: Link) -> None:
    if name in links:
        return
    parent = name
    while parent and parent not in links:
        parent = parent.rpartition("/")[0]
    if name.startswith("/"):
        raise ValueError(f"{name!r} begins with a slash: leave it out")
    owner = links.get(parent, net)
    child = name[len(parent) :].lstrip("/").partition("/")[0]
    if callable(getattr(owner, child, None)):
        raise ValueError(
            f"{name!r} of {type(net).__name__} is a function, not a link, and has no "
            "name here: name the link before it"
        )
    close = difflib.get_close_matches(name, [*links, INPUT])
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    siblings = [k for k in links if k.rpartition("/")[0] == parent]
    raise ValueError(
        f"{type(net).__name__} has no link {name!r}.{hint} In "
        f"{repr(parent) if parent else 'it'} there are {listed(siblings) or 'none'}"
    )


def listed(names) -> str:
    names = [repr(name) for name in names]
    return ", ".join(names if len(names) <= 30 else [*names[:30], "..."])


def is_in(name: str, other: str) -> bool:
    return name.startswith(other + "/")
