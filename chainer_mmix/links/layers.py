from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence

import chainer
from chainer import Link

from chainer_mmix.links.branches import BranchCheck
from chainer_mmix.links.contract import called, check_link
from chainer_mmix.links.names import INPUT, listed, names_of
from chainer_mmix.links.states import Mixing, take_target
from chainer_mmix.links.suggest import survey
from chainer_mmix.mixing.points import resolve


class MixupLayers(chainer.Chain):
    """Makes any network mix the outputs of its links, chosen by name.

    The network and its ``forward`` remain unchanged::

        net = chainercv.links.ResNet50(n_class=10)
        net.pick = "fc6"  # logits, not probabilities
        model = ManifoldMixupClassifier(MixupLayers(net, ["input", "res2", "res3"]))

    The names are those of :meth:`chainer.Link.namedlinks` without the leading slash:
    ``"res2"``, ``"res2/a"``, ``"0"`` for the first link of a list. A layer of a
    :class:`chainer.Sequential` is named by its position in brackets, ``"[2]"`` or
    ``"head[2]/conv"``, since Chainer numbers the links of one in another order; if
    ``net`` itself is a list, the integer 2 will do: ``["input", 0, 2]``. ``"input"`` is
    the input of the network: all its arrays, which stay arrays as in evaluation. Only
    links have names; where a network calls functions, name the link before them.

    A link may return a Variable, or a tuple, list or dict of Variables, all of shape
    (N, ...). If it is called several times, the result of the first call is mixed. If
    training skips it at random, as with stochastic depth, the step is not mixed: each
    sample is its own partner.

    Mixing inside a branch raises an error, since a shortcut would carry the unmixed
    state past it. So does the use, after the mixing point, of a mask or a length of the
    first partner only, since a mixed sample has those of both. Each step searches the
    graph for such paths. For paths that are not in the graph, such as computations in
    NumPy, a copy of the network is called in test mode, once for each point.

    Mixing a link inside :func:`chainer.functions.forget`, which calls it again later,
    or inside :func:`chainer.static_graph`, which replays its first call, also raises an
    error.

    The weights keep the names that they have in ``net``, in snapshots and everywhere
    else, so the wrapped and the bare network can load each other's files.

    Args:
        net (~chainer.Link): The network.
        layers: Names of links, which may include ``"input"``, or positions in a list;
            or a function ``f(name, link)`` that returns whether to take a link.
        pick (str): For the networks of :mod:`chainer.links` whose ``forward`` takes
            ``layers`` and returns a dict: the entry to compute and return, such as
            ``"fc6"`` of :class:`chainer.links.ResNet50Layers`, unless a call passes
            ``layers`` itself. By default, the result of ``net`` is returned as it is.
        aside: Indices, keys or attributes of the outputs that the loss does not compare
            with a target, such as the matrix of a penalty. They may come from unmixed
            samples. The default is none.

    Attributes:
        mixup_layers (tuple of str): The names.
        net (~chainer.Link): The network.

    Raises:
        TypeError: If an argument is of the wrong type, or ``net`` takes no ``layers``.
        ValueError: If ``net`` has no such link, a name comes twice, a number is
            Chainer's and not the position in a Sequential, or a network of
            :mod:`chainer.links` or ChainerCV would return probabilities.
    """

    def __init__(
        self,
        net: Link,
        layers: Sequence[str | int] | Callable[[str, Link], bool],
        pick: str | None = None,
        aside: Sequence[int | str] = (),
    ) -> None:
        super().__init__()
        check_link(net, "net")
        if not (callable(layers) or isinstance(layers, Iterable)):
            raise TypeError(
                f"layers must be a list of names, such as ['input'], not {layers!r}"
            )
        if not callable(layers) and not isinstance(layers, str):
            layers = tuple(layers)
        names = names_of(net, layers)
        given = names if callable(layers) else layers
        self.mixup_layers = tuple(
            layer if isinstance(layer, str) else name
            for layer, name in zip(given, names, strict=True)
        )
        self._names = dict(zip(self.mixup_layers, names, strict=True))
        _check_pick(net, pick)
        self.pick = pick
        if isinstance(aside, (int, str)):
            raise TypeError(f"aside must be a list: [{aside!r}]")
        self.aside = tuple(aside)
        self._checks: dict[str, BranchCheck] = {}
        with self.init_scope():
            self.net = net

    def forward(
        self, *args, mixup_hidden=False, lam=1.0, layer_mix=None, target=None, **kwargs
    ):
        """Calls the network, and mixes at one point.

        Args:
            args: The inputs of the network. When mixing, the target follows them,
                unless it comes by name.
            mixup_hidden (bool): Whether to mix. The default is ``False``.
            lam (float or array): Weight of the first partner, a number or of shape
                (N,).
            layer_mix (int or str): The mixing point, or its index in
                ``mixup_layers``; ``None`` draws one from :mod:`numpy.random`.
            target (~chainer.Variable or array): Array of shape (N, ...).
            kwargs: Further inputs of the network, by name.

        Returns:
            The result ``y`` of the network, or ``(y, target_a, target_b)`` when mixing.

        Raises:
            RuntimeError: If the link is never called, or lies in a branch, under
                ``static_graph`` or before a cut of the graph.
            TypeError: If there is no target, the state does not consist of float
                arrays, or the input has masks or lengths that differ among samples.
            ValueError: If there is no such mixing point, or the state does not have
                one row per sample.
        """
        if not mixup_hidden:
            return self._call(self.net, *args, **kwargs)
        if target is None:
            args, target = take_target(args, kwargs)
        name = self._names[resolve(layer_mix, self.mixup_layers, self.net)]
        mixing = Mixing(name, target, lam)
        if name == INPUT:
            args, kwargs = mixing.mix_inputs(args, kwargs)
            y = self._call(self.net, *args, **kwargs)
        else:
            check = self._checks.setdefault(name, BranchCheck(name, self.aside))
            y = check.call(self.net, self._call, mixing, args, kwargs)
        return y, *mixing.targets

    def _call(self, net: Link, *args, **kwargs):
        if self.pick is None or _asks_for_layers(net, args, kwargs):
            return net(*args, **kwargs)
        return net(*args, layers=[self.pick], **kwargs)[self.pick]

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
        """Prints where a network can mix, and proposes the points that the paper uses.

        The table lists the input and the links that every path from input to output
        passes through, with the shapes of their outputs and their numbers of
        parameters. A star marks the proposal: the input and, among the outermost links
        that contain shortcuts or parallel branches (or, without any branches, among
        those with weights), the last one of the first and of the second size of feature
        maps. If there are only two sizes, as in a dilated network, another number of
        channels counts as another size; if all have the same size, the first two links
        are proposed. Links that no parameters follow are not proposed, since mixing
        there would mix logits.

        It calls copies of the network in test and in training mode.

        Source: the residual networks of arXiv 1806.05236, which mix at the input and
        after the first two stages.

        Args:
            net (~chainer.Link): The network.
            x: Its input, an array or Variable of shape (N, ...), or a tuple of all its
                inputs. Two samples are enough.

        Returns:
            list of str: The proposed names, for
            ``MixupLayers(net, MixupLayers.suggest(net, x))``.

        Raises:
            ValueError: If ``x`` is a single sample without a batch axis.
        """
        table, proposal = survey(net, x if isinstance(x, tuple) else (x,))
        print(table)
        if not proposal:
            print("There is no point to propose: call mixup_data in forward instead")
        return proposal


def _signature(net: Link) -> inspect.Signature:
    return inspect.signature(called(net))


def _asks_for_layers(net: Link, args: Sequence, kwargs: dict) -> bool:
    return "layers" in kwargs or (
        len(args) > 1 and "layers" in _signature(net).bind_partial(*args).arguments
    )


def _check_pick(net: Link, pick: str | None) -> None:
    name = type(net).__name__
    if pick is not None and "layers" not in _signature(net).parameters:
        raise TypeError(
            f"pick={pick!r} is for networks whose forward takes layers=[...], but "
            f"{name} takes {_signature(net)}; with those of ChainerCV, set net.pick = "
            f"{pick!r}"
        )
    available = getattr(net, "available_layers", None)  # of chainer.links
    if available is not None and pick not in available:
        raise ValueError(
            f"{name} returns a dict of its layers: choose the one with the logits by "
            f"pick=..., out of {listed(available)}, not {pick!r}"
        )
    names = getattr(net, "layer_names", None)  # of ChainerCV
    if names and net.pick is None and names[-1] == "prob":
        raise ValueError(
            f"{name} returns probabilities, but the loss takes logits: set net.pick to "
            f"one of {listed(names[:-1])}"
        )
