from __future__ import annotations

import copy
import difflib
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import chainer
import numpy as np
from chainer import Link

from chainer_mmix.links.graph import Trace, depend, intercepted, is_array, leaves
from chainer_mmix.mixing.functions import mixup_data

_INPUT = "input"


class MixupLayers(chainer.Chain):
    """Makes any network mix the outputs of its links, chosen by their names.

    The network stays as it is, its ``forward`` too::

        net = chainercv.links.ResNet50(n_class=10)
        net.pick = "fc6"  # logits, not probabilities
        model = ManifoldMixupClassifier(MixupLayers(net, ["input", "res2", "res3"]))

    Names are those of :meth:`chainer.Link.namedlinks` without the first slash:
    ``"res2"``, ``"res2/a"``, ``"0"`` for the first link of a list. ``"input"`` is the
    input of the network: all arrays among its arguments but boolean ones, which are
    masks. Only links have names; where a network calls functions, name the link before
    them.

    Of a link that is called several times, the result of the first call is mixed. A
    link may return a Variable or a tuple or dict of them, all of shape (N, ...).

    Mixing inside a branch is an error, since a shortcut would carry the unmixed state
    past it. The graph of the first mixing at each point is searched for such ways;
    what a network computes with NumPy is not in it. A link called within
    :func:`chainer.functions.forget`, which calls it again later, is an error too.

    The weights have the names that they have in ``net``, in snapshots and everywhere
    else, so the wrapped network and the bare one can load each other's files.

    Args:
        net (~chainer.Link): The network.
        layers: Names of links, ``"input"`` among them or not; or a function
            ``f(name, link)`` that says which of the links to take.
        pick (str): For the networks of :mod:`chainer.links` whose ``forward`` takes
            ``layers`` and returns a dict: the entry to compute and return, such as
            ``"fc6"`` of :class:`chainer.links.ResNet50Layers`. By default, the result
            is what ``net`` returns.

    Attributes:
        mixup_layers (tuple of str): The names.

    Raises:
        TypeError: If an argument is of the wrong type, or ``net`` takes no ``layers``.
        ValueError: If ``net`` has no such link, or a name comes twice.
    """

    def __init__(
        self,
        net: Link,
        layers: Sequence[str] | Callable[[str, Link], bool],
        pick: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(net, Link):
            raise TypeError(f"net must be a chainer.Link, not {net!r}")
        self.mixup_layers = _names(net, layers)
        _check_pick(net, pick)
        self.pick = pick
        self._checked: set[str] = set()
        with self.init_scope():
            self.net = net

    def forward(
        self, *args, mixup_hidden=False, lam=1.0, layer_mix=None, target=None, **kwargs
    ):
        """Calls the network, and mixes at one point.

        Args:
            args: The inputs of the network, then the target. The target may also come
                by name. Without mixing it is not needed: given by name, or as an
                argument more than the network takes, it is left out.
            mixup_hidden (bool): Whether to mix. The default is ``False``.
            lam (float or array): Weight of the first partner, a number or of shape
                (N,).
            layer_mix (int or str): The mixing point, or its index in
                ``mixup_layers``; ``None`` draws one from :mod:`numpy.random`.
            target (~chainer.Variable or array): Array of shape (N, ...).
            kwargs: Further inputs of the network, by name.

        Returns:
            What the network returns, ``y``, or ``(y, target_a, target_b)`` when mixing.

        Raises:
            RuntimeError: If the link was not called, or lies in a branch.
            TypeError: If there is no target, or the state is not of float arrays.
            ValueError: If there is no such mixing point, or the state does not have
                one row a sample.
        """
        if not mixup_hidden:
            return self._call(*self._without_target(args, kwargs), **kwargs)
        if target is None:
            if not args or len(args) + len(kwargs) < 2:
                raise TypeError(
                    "to mix, call it as (x, target, mixup_hidden=True, lam=...): the "
                    "target is missing"
                )
            *args, target = args
        name = self._point(layer_mix)
        mixing = _Mixing(name, target, lam)
        if name == _INPUT:
            args, kwargs = mixing.mix_inputs(args, kwargs)
            y = self._call(*args, **kwargs)
        elif name in self._checked or not chainer.config.enable_backprop:
            with intercepted(_find(self.net, name), mixing.call):
                y = self._call(*args, **kwargs)
            self._check_called(mixing)
        else:
            y = self._checked_call(mixing, args, kwargs)
            self._checked.add(name)
        return y, *mixing.targets

    def _call(self, *args, **kwargs):
        if self.pick is None:
            return self.net(*args, **kwargs)
        return self.net(*args, layers=[self.pick], **kwargs)[self.pick]

    def _without_target(self, args: tuple, kwargs: dict) -> tuple:
        if len(args) > 1:
            try:
                _signature(self.net).bind(*args, **kwargs)
            except TypeError:
                return args[:-1]
        return args

    def _point(self, layer_mix: int | str | None) -> str:
        names = self.mixup_layers
        if layer_mix is None:
            return names[np.random.randint(len(names))]
        if layer_mix in names:
            return layer_mix
        if isinstance(layer_mix, (int, np.integer)) and 0 <= layer_mix < len(names):
            return names[layer_mix]
        raise ValueError(
            f"there is no mixing point {layer_mix!r}; there are "
            f"{', '.join(f'{k}: {name!r}' for k, name in enumerate(names))}"
        )

    def _check_called(self, mixing: _Mixing) -> None:
        if mixing.n_calls == 0:
            # A list of links, for example, is not called itself.
            inside = [k for k in _links(self.net) if _is_in(k, mixing.name)]
            raise RuntimeError(
                f"{type(self.net).__name__} did not call its link {mixing.name!r}, so "
                "nothing was mixed: name a link that it calls"
                + (f", if need be one of {_listed(inside)}" if inside else "")
            )

    def _checked_call(self, mixing: _Mixing, args, kwargs):
        """Calls the network, and raises an error if a way leads around the mixing."""
        name, net = mixing.name, type(self.net).__name__
        parents = [name[:i] for i, c in enumerate(name) if c == "/"]
        trace = Trace((args, kwargs))
        links = {parent: _find(self.net, parent) for parent in reversed(parents)}
        with intercepted(_find(self.net, name), mixing.call), trace.watching(links):
            y = self._call(*args, **kwargs)
        self._check_called(mixing)
        n = len(mixing.targets[0])
        if trace.is_bypassed(y, mixing.mixed, n):
            times = ""
            if mixing.n_calls > 1:
                times = f" (only the first of its {mixing.n_calls} calls is mixed)"
            message = (
                f"{name!r} of {net} lies in a branch: a shortcut, another branch, "
                f"input or output leads around it{times}, so that unmixed samples "
                "would meet mixed targets. "
            )
            for parent in links:
                state = trace.outputs.get(parent)
                if depend(y, state) and not trace.is_bypassed(y, state, n):
                    raise RuntimeError(f"{message}Mix after {parent!r} instead")
            raise RuntimeError(
                f"{message}Choose another place: MixupLayers.suggest(net, x) lists "
                "those that every way leads through"
            )
        if mixing.has_graph and not depend(y, mixing.mixed):
            raise RuntimeError(
                f"the output of {net} is not computed from that of its link {name!r}: "
                "mix at another link"
            )
        return y

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or restores the weights, under the names that they have in ``net``."""
        self.net.serialize(serializer)

    def namedparams(
        self, include_uninit: bool = True
    ) -> Iterator[tuple[str, chainer.Parameter]]:
        """Yields the parameters, under the names that they have in ``net``."""
        return self.net.namedparams(include_uninit)

    def namedlinks(self, skipself: bool = False) -> Iterator[tuple[str, Link]]:
        """Yields the links, under the names that they have in ``net``.

        The name of ``net`` is empty, so that what it reports has the same name in the
        log as without the wrapper.
        """
        if not skipself:
            yield "/", self
        yield "", self.net
        yield from self.net.namedlinks(skipself=True)

    @staticmethod
    def suggest(net: Link, x) -> list[str]:
        """Prints where a network can mix, and proposes the places that the paper uses.

        The table has the input and the links that every way from input to output leads
        through, with the shapes of their outputs and the numbers of their parameters.
        A star marks the proposal: the input and, of the outermost links with shortcuts
        or parallel branches inside (or with weights, if nowhere are branches), the last
        one of the first and of the second size of feature maps. If all are of one size,
        it is the first two. Links that no parameters follow are left out, since
        mixing there would mix logits.

        It calls a copy of the network once, in test mode.

        Source: the residual networks of arXiv 1806.05236, which mix at the input and
        after the first two stages.

        Args:
            net (~chainer.Link): The network.
            x: Its input, an array or Variable of shape (N, ...), or a tuple of all its
                inputs. Two samples are enough.

        Returns:
            list of str: The proposed names, for
            ``MixupLayers(net, MixupLayers.suggest(net, x))``.
        """
        inputs = x if isinstance(x, tuple) else (x,)
        places, proposal = _survey(copy.deepcopy(net), inputs)
        rows = [(" ", "name", "link", "output", "parameters")]
        rows += [("*" if place[0] in proposal else " ", *place) for place in places]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            line = "  ".join(map(str.ljust, row[:-1], widths))
            print(f"{line}  {row[-1]:>{widths[-1]}}")
        return proposal


class _Mixing:
    """One mixing, of the output of a link or of the inputs."""

    def __init__(self, name: str, target, lam) -> None:
        self.name = name
        self.target = target
        self.lam = lam
        self.n_calls = 0

    def call(self, forward: Callable, *args, **kwargs):
        """Mixes what a link's forward returns, if this is the first call."""
        self.n_calls += 1
        if self.n_calls > 1:
            return forward(*args, **kwargs)
        h = forward(*args, **kwargs)
        mixed = self._mix(_parts(h), f"the output of {self.name!r}")
        if isinstance(h, dict):
            return dict(zip(h, mixed, strict=True))
        return mixed if isinstance(h, tuple) else mixed[0]

    def mix_inputs(self, args: Sequence, kwargs: dict) -> tuple[list, dict]:
        """Mixes all arrays among the arguments but masks."""
        values = {**dict(enumerate(args)), **kwargs}
        arrays = {k: v for k, v in values.items() if _is_data(v)}
        mixed = self._mix(tuple(arrays.values()), "the input")
        values.update(zip(arrays, mixed, strict=True))
        return [values.pop(k) for k in range(len(args))], values

    def _mix(self, parts: tuple, what: str) -> tuple:
        if chainer.config._will_recompute:
            raise RuntimeError(
                f"{what} cannot be mixed within chainer.functions.forget, which "
                "computes it again for the gradient, without mixing: mix outside of it"
            )
        _check_parts(parts, len(self.target), what)
        # Not a tuple of one, since CutMix takes a single map only.
        h = parts if len(parts) > 1 else parts[0]
        mixed, *self.targets = mixup_data(h, self.target, self.lam)
        self.mixed = mixed if len(parts) > 1 else (mixed,)
        self.has_graph = chainer.config.enable_backprop
        return self.mixed


def _is_data(value) -> bool:
    """Whether an argument has arrays in it, other than masks."""
    return any(leaf.dtype.kind != "b" for leaf in leaves(value))


def _parts(h) -> tuple:
    if isinstance(h, dict):
        return tuple(h.values())
    return h if isinstance(h, tuple) else (h,)


def _check_parts(parts: tuple, n: int, what: str) -> None:
    """Raises an error if a state of several parts cannot be mixed."""
    if not all(map(is_array, parts)) or not parts:
        kinds = ", ".join(type(part).__name__ for part in parts) or "nothing"
        raise TypeError(
            f"{what} cannot be mixed, since it is not an array with one row a sample, "
            f"nor a tuple or dict of these, but has {kinds}: choose another place"
        )
    for part in parts:
        if part.dtype.kind != "f":
            raise TypeError(
                f"{what} has dtype {part.dtype}, which cannot be mixed: choose a link "
                "behind it, such as the embedding of token ids, or convert it to float"
            )
        if part.shape[:1] != (n,):
            raise ValueError(
                f"{what} has shape {part.shape}, but there are {n} targets, and one "
                "row a sample is needed: choose another place"
            )


def _names(net: Link, layers) -> tuple[str, ...]:
    links = _links(net)
    if callable(layers):
        layers = [name for name, link in links.items() if layers(name, link)]
    elif isinstance(layers, str):
        raise TypeError(f"layers must be a list of names: [{layers!r}]")
    layers = tuple(layers)
    if not layers:
        raise ValueError(f"layers chooses none of 'input', {_listed(links)}")
    for name in layers:
        if not isinstance(name, str):
            raise TypeError(
                f"{name!r} is not a name. There are 'input', {_listed(links)}"
            )
        if layers.count(name) > 1:
            raise ValueError(f"{name!r} comes twice in layers: {layers}")
        if name != _INPUT:
            _check_name(name, links, net)
        elif _INPUT in links:
            raise ValueError(
                f"'input' is the input of the network, but {type(net).__name__} has a "
                "link of that name too: rename it to mix at either"
            )
    return layers


def _links(net: Link) -> dict[str, Link]:
    named = net.namedlinks(skipself=True)
    return {path[1:]: link for path, link in named if path}  # see namedlinks above


def _find(net: Link, name: str) -> Link:
    # Faster than namedlinks, once the names are known to be right.
    link = net
    for part in name.split("/"):
        if isinstance(link, MixupLayers):
            link = link.net
        is_list = isinstance(link, chainer.ChainList)
        link = list(link.children())[int(part)] if is_list else link[part]
    return link


def _check_name(name: str, links: dict[str, Link], net: Link) -> None:
    if name in links:
        return
    parent = name
    while parent and parent not in links:
        parent = parent.rpartition("/")[0]
    owner = links.get(parent, net)
    child = name[len(parent) :].lstrip("/").partition("/")[0]
    if callable(getattr(owner, child, None)):
        raise ValueError(
            f"{name!r} of {type(net).__name__} is a function, not a link, and has no "
            "name here: name the link before it"
        )
    close = difflib.get_close_matches(name, [*links, _INPUT])
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    siblings = [k for k in links if k.rpartition("/")[0] == parent]
    raise ValueError(
        f"{type(net).__name__} has no link {name!r}.{hint} In "
        f"{repr(parent) if parent else 'it'} there are {_listed(siblings) or 'none'}"
    )


def _listed(names) -> str:
    names = [repr(name) for name in names]
    return ", ".join(names if len(names) <= 30 else [*names[:30], "..."])


def _signature(net: Link) -> inspect.Signature:
    return inspect.signature(getattr(net, "forward", net))


def _check_pick(net: Link, pick: str | None) -> None:
    if pick is not None and "layers" not in _signature(net).parameters:
        raise TypeError(
            f"pick={pick!r} is for networks whose forward takes layers=[...], but "
            f"{type(net).__name__} takes {_signature(net)}; with those of ChainerCV, "
            f"set net.pick = {pick!r}"
        )


def _survey(net: Link, inputs: tuple) -> tuple[list[tuple], list[str]]:
    """Calls a network, and returns the rows of suggest's table and its proposal."""
    n = len(inputs[0])
    links = _links(net)
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
        if k not in bypassed and depend(y, h) and _is_mixable(_parts(h), n)
    }
    rows = [
        (k, type(links[k]).__name__, _shapes(h), f"{_n_params(links[k]):,}")
        for k, h in places.items()
    ]
    proposal = []
    data = tuple(filter(_is_data, inputs))
    if _is_mixable(data, n):
        rows.insert(0, (_INPUT, "", _shapes(data), ""))
        proposal = [_INPUT]

    called = list(trace.outputs)
    has_own_params = {k for k in called if any(True for _ in Link.params(links[k]))}

    def is_followed(name: str) -> bool:
        later = called[called.index(name) + 1 :]
        return any(k in has_own_params and not _is_in(name, k) for k in later)

    def choose(level: list[str]) -> list[str]:
        blocks = [k for k in level if k in branching]
        if not branching:
            blocks = _layers({k: links[k] for k in level})
        blocks = [k for k in blocks if is_followed(k)]
        sizes = itertools.groupby(blocks, lambda k: leaves(places[k])[0].shape[2:])
        last_ones = [list(same_size)[-1] for _, same_size in sizes]
        return last_ones[:2] if len(last_ones) > 1 else blocks[:2]

    branching = {a for a in places if any(_is_in(b, a) for b in bypassed)}
    levels = [_outermost(places)]
    while (inner := _one_level_down(levels[-1], places)) != levels[-1]:
        levels.append(inner)
    return rows, proposal + max(map(choose, levels), key=len)


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


def _is_in(name: str, other: str) -> bool:
    return name.startswith(other + "/")


def _outermost(names: Iterable[str]) -> list[str]:
    return [a for a in names if not any(_is_in(a, b) for b in names)]


def _one_level_down(level: list[str], places: Iterable[str]) -> list[str]:
    inside = {k: _outermost([a for a in places if _is_in(a, k)]) for k in level}
    return [b for k in level for b in inside[k] or [k]]


def _is_mixable(parts: tuple, n: int) -> bool:
    try:
        _check_parts(parts, n, "it")
    except (TypeError, ValueError):
        return False
    return True


def _shapes(h) -> str:
    return ", ".join(str(leaf.shape) for leaf in leaves(h))


def _n_params(link: Link) -> int:
    return sum(param.size for param in link.params(include_uninit=False))
