"""Makes sure that all that a network computes goes through the mixing point."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import chainer
from chainer import FunctionNode, Link

from chainer_mmix.links.graph import (
    Trace,
    depend,
    ends_of_graph,
    intercepted,
    is_bypassed,
    is_parameter,
    is_recorded,
    leaves,
    nodes,
)
from chainer_mmix.links.names import is_in, links_of, listed
from chainer_mmix.links.probe import Probe, have_different_samples
from chainer_mmix.links.states import JOIN, Mixing
from chainer_mmix.mixing.draw import current_mixture


class BranchCheck:
    """Calls a network that mixes the output of one link, and checks each step.

    The first time it watches which functions take the inputs. Later it only searches
    the graph, which is cheap, for paths that were absent before, as in stochastic
    depth. Where the graph cannot tell, it calls copies of the network.

    Args:
        name (str): The link.
        aside: Indices, keys or attributes of the outputs that are not checked.
    """

    def __init__(self, name: str, aside: Sequence[int | str]) -> None:
        self.name = name
        self.aside = aside
        self._was_called = False
        self._passed = False
        self._watches = False  # even so
        self._graph_may_miss = True  # what no graph shows
        self._constants: set[tuple] = set()

    def call(self, net: Link, call: Callable, mixing: Mixing, args, kwargs):
        """Returns the outputs; the errors are those of ``MixupLayers.forward``.

        Args:
            net (~chainer.Link): The network.
            call (callable): Calls it, as ``call(net, *args, **kwargs)``.
            mixing (Mixing): Mixes the output of the link.
            args, kwargs: The inputs.
        """
        links = links_of(net)
        checks = chainer.config.enable_backprop
        with contextlib.ExitStack() as stack:
            trace = None
            if checks and (self._watches or not self._passed):
                trace = Trace((args, kwargs))
                stack.enter_context(trace.watching(_parents(self.name, links)))
            stack.enter_context(intercepted(links[self.name], mixing.call))
            y = call(net, *args, **kwargs)
        n = len(mixing.target)

        @functools.cache
        def probe() -> Probe | None:
            def checked(net: Link, *args, **kwargs):
                return _without(call(net, *args, **kwargs), self.aside)

            return Probe.of(net, checked, args, kwargs, n)

        if mixing.n_calls == 0:
            self._check_that_it_is_left_out_at_random(net, probe)
            mixing.leave_unmixed()
            return y
        self._was_called = True
        if checks:
            self._check(net, y, mixing, (args, kwargs), trace, probe)
        return y

    def _check_that_it_is_left_out_at_random(self, net: Link, probe: Callable) -> None:
        owner = f"{type(net).__name__} did not call its link {self.name!r}"
        if is_recorded(net):
            raise RuntimeError(
                f"{owner}, since static_graph replays what it recorded: mix at the "
                "input or outside of that chain, or set "
                "chainer.config.use_static_graph = False"
            )
        if not self._was_called:
            tried = probe()
            self._was_called = tried is not None and self.name in tried.outputs
        if not self._was_called:
            # A list of links, for example, is not called itself.
            inside = [k for k in links_of(net) if is_in(k, self.name)]
            raise RuntimeError(
                f"{owner}, so nothing was mixed: name a link that it calls"
                + (f", if need be one of {listed(inside)}" if inside else "")
            )

    def _check(
        self,
        net: Link,
        y,
        mixing: Mixing,
        inputs: tuple,
        trace: Trace | None,
        probe: Callable[[], Probe | None],
    ) -> None:
        owner, outputs = type(net).__name__, _without(y, self.aside)
        if mixing.has_graph and not depend(outputs, mixing.mixed):
            raise RuntimeError(
                f"the output of {owner} is not computed from that of its link "
                f"{self.name!r}{_which(mixing)}, or the graph is cut on the way: mix "
                "at another point, and freeze what follows by disable_update, not by "
                "no_backprop_mode"
            )
        if trace is not None:
            check_that_parts_meet(leaves(y), mixing.mixed, self.name, net)
        search = Search(inputs, trace, len(mixing.target), self._constants)
        leads_around = search.is_bypassed(outputs, mixing.mixed)
        if trace is None and not leads_around:
            by_inputs = search.is_bypassed_by_inputs(outputs, mixing.mixed)
            if by_inputs is None:
                self._watches = True  # from the next step on, which will tell
                return
            leads_around = by_inputs
        may_miss = not mixing.has_graph or has_lengths_or_masks(inputs)
        may_miss = self._graph_may_miss and may_miss
        differ = may_miss and have_different_samples(inputs, search.n)
        # A network that asks for the partners joins the masks of both.
        mixture = current_mixture()
        joins = mixture is not None and mixture.is_known
        unsure = search.suspects or differ or not self._passed
        if not (leads_around or joins) and unsure:
            tried = probe()
            leads_around = tried is not None and bool(tried.is_bypassed(self.name))
        if leads_around:
            raise RuntimeError(self._message(owner, mixing, search, outputs, trace))
        self._passed = True
        self._graph_may_miss = may_miss and not differ
        if trace is not None:
            self._constants |= search.suspects.keys()
        elif search.suspects:  # part of an input, it may be, in training only
            self._watches = True

    def _message(
        self, owner: str, mixing: Mixing, search: Search, outputs, trace
    ) -> str:
        message = (
            f"{self.name!r} of {owner} lies in a branch: a shortcut, another branch, "
            f"input or output leads around it{_which(mixing)}, so that unmixed samples "
            "would meet mixed targets. "
        )
        parents = () if trace is None else trace.outputs.items()
        for parent, h in sorted(parents, key=lambda item: -len(item[0])):
            if not search.is_bypassed(outputs, h) and not search.suspects:
                return f"{message}Mix after {parent!r} instead"
        if has_lengths_or_masks(search.inputs):
            message += f"If it is a mask or lengths that lead around it: {JOIN}. "
        return (
            f"{message}Choose another point: MixupLayers.suggest(net, x) lists those "
            "that every path leads through. An output that the loss compares with no "
            "target is named in MixupLayers(..., aside=)"
        )


def _which(mixing: Mixing) -> str:
    if mixing.n_calls == 1:
        return ""
    return f" (only the first of its {mixing.n_calls} calls is mixed)"


class Search:
    """Searches the graph of one forward pass for paths around a state.

    Args:
        inputs: The inputs of the network, nested as one likes.
        trace (Trace): Which functions took them, if that was watched.
        n (int): The batch size.
        constants: Kinds of leaves that are known to be constants.

    Attributes:
        suspects: Leaves of the graph that may be data, since they have one row a
            sample, by their kind: their dtype, and their shape without the first axis.
        kinds_of_inputs: The kinds of the inputs.
    """

    def __init__(self, inputs, trace: Trace | None, n: int, constants=()) -> None:
        self.inputs, self.n = inputs, n
        self._trace, self._constants = trace, constants
        self._nodes = nodes(inputs)
        self.kinds_of_inputs = {
            _kind(leaf) for leaf in leaves(inputs) if leaf.shape[:1] == (n,)
        }
        self.suspects: dict[tuple, dict] = {}

    def is_bypassed(self, outputs, state) -> bool:
        """Whether a path surely leads around a state; if not, see the suspects."""
        self.suspects = {}
        if is_bypassed(outputs, state, self._is_input):
            return True
        if self.suspects and not self._is_bypassed_by(self.suspects, outputs, state):
            self.suspects = {}
        stop = nodes(state)
        for leaf in leaves(outputs):
            node = leaf.node if isinstance(leaf, chainer.Variable) else None
            if node is None or (node.creator_node is None and node not in stop):
                self._suspect(leaf)
        return False

    def is_bypassed_by_inputs(self, outputs, state) -> bool | None:
        """Whether a path leads from what looks like an input; ``None`` if it may.

        A constant may look like it, so it is sure only if nothing else does, and if the
        state is computed from it.
        """
        alike = {k: v for k, v in self.suspects.items() if k in self.kinds_of_inputs}
        if not alike or not self._is_bypassed_by(alike, outputs, state):
            return False
        kinds = [
            _kind(node)
            for node in ends_of_graph(outputs)
            if node.shape[:1] == (self.n,) and not is_parameter(node)
        ]
        own = {id(node) for node in ends_of_graph(state)}
        sure = (kinds.count(k) == 1 and not own.isdisjoint(alike[k]) for k in alike)
        return True if all(sure) else None

    def _is_bypassed_by(self, suspects: dict[tuple, dict], outputs, state) -> bool:
        found = {key for alike in suspects.values() for key in alike}
        return is_bypassed(
            outputs, state, lambda function, i: id(function.inputs[i]) in found
        )

    def _is_input(self, function: FunctionNode, i: int) -> bool:
        node = function.inputs[i]
        if node in self._nodes or (self._trace and self._trace.is_fed(function, i)):
            return True
        if not is_parameter(node):
            self._suspect(node)
        return False

    def _suspect(self, leaf) -> None:
        if leaf.shape[:1] == (self.n,) and _kind(leaf) not in self._constants:
            self.suspects.setdefault(_kind(leaf), {})[id(leaf)] = leaf


def _kind(leaf) -> tuple:
    return leaf.dtype, leaf.shape[1:]


def has_lengths_or_masks(inputs) -> bool:
    """Whether inputs may be lengths or masks, whose use no graph shows."""
    arrays = leaves(inputs)
    return len(arrays) > 1 or any(x.dtype.kind != "f" for x in arrays)


def check_that_parts_meet(outputs: list, parts: tuple, name: str, net: Link) -> None:
    """Raises an error if what a link returns is not all of one state."""
    if len(parts) == 1:
        return
    reached = [{k for k, y in enumerate(outputs) if depend(y, h, parts)} for h in parts]
    for (i, a), (k, b) in itertools.combinations(enumerate(reached), 2):
        if a and b and a.isdisjoint(b):
            raise RuntimeError(
                f"the output of {name!r} has {len(parts)} parts, of which parts {i} "
                f"and {k} lead to different outputs of {type(net).__name__}: one of "
                "them may be no hidden state, but belong to a penalty, and must not be "
                "mixed then. Mix after a link that takes the state alone, or call "
                "mixup_data in a forward of your own"
            )


def _without(y, aside: Sequence[int | str]):
    """Returns the outputs but those that no target is compared with."""
    if not aside:
        return y
    items: Mapping
    if isinstance(y, (tuple, list)):
        items = dict(enumerate(y))
    else:
        items = y if isinstance(y, Mapping) else vars(y)
    missing = [key for key in aside if key not in items]
    if missing:
        raise ValueError(
            f"aside names {listed(missing)}, but the network returns {listed(items)}"
        )
    return [value for key, value in items.items() if key not in aside]


def _parents(name: str, links: Mapping[str, Link]) -> dict[str, Link]:
    return {a: link for a, link in links.items() if is_in(name, a)}
