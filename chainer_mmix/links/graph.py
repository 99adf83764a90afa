"""The calls of a forward pass, and the paths to its outputs."""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping

import chainer
from chainer import FunctionNode
from chainer.variable import VariableNode


@contextlib.contextmanager
def intercepted(link: chainer.Link, around: Callable) -> Iterator[None]:
    """Passes the calls of a link through ``around(call, *args, **kwargs)``.

    What ``around`` returns is what the caller gets. A :class:`chainer.LinkHook` cannot
    replace that, nor does it see the links that override ``__call__``.
    """
    own: type = type(link)
    attributes = vars(link)
    if any(
        "__call__" in vars(base) for base in own.__mro__ if base is not chainer.Link
    ):
        key, link.__class__ = _with_open_call(own)
        attributes[key] = around
        try:
            yield
        finally:
            del attributes[key]
            link.__class__ = own
        return
    forward = getattr(link, "forward", None)  # None if it only holds parameters
    before = {key: attributes[key] for key in attributes.keys() & {"forward"}}
    attributes["forward"] = functools.partial(around, forward)
    try:
        yield
    finally:
        del attributes["forward"]
        attributes.update(before)


@functools.cache
def _with_open_call(own: type) -> tuple[str, type]:
    """Returns a subclass that calls what its instance has under the returned key.

    Python looks for ``__call__`` in the class, not in the instance.
    """
    key = f"_around_call_{len(own.__mro__)}"  # another one for a subclass of a subclass

    def __call__(self, *args, **kwargs):
        call = functools.partial(own.__call__, self)
        return vars(self)[key](call, *args, **kwargs)

    return key, type(own)(own.__name__, (own,), {"__call__": __call__})


def is_recorded(net: chainer.Link) -> bool:
    """Whether a part of a network replays what ``static_graph`` has recorded."""
    return chainer.config.use_static_graph and any(
        hasattr(link, "schedule_manager") for link in net.links()
    )


def leaves(value) -> list:
    """Returns the arrays and Variables in nested tuples, lists, dicts and objects.

    Objects are dataclasses, namespaces, :mod:`chainer.distributions` and the like, but
    not links.
    """
    if is_array(value):
        return [value]
    found, seen, rest = [], set(), [value]
    while rest:
        value = rest.pop()
        if is_array(value):
            found.append(value)
        elif id(value) not in seen:
            seen.add(id(value))
            rest += reversed(list(_items(value)))
    return found


def _items(value) -> Iterable:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (tuple, list)):
        return value
    if isinstance(value, (chainer.Link, type, types.ModuleType)):
        return ()
    slots = (vars(base).get("__slots__", ()) for base in type(value).__mro__)
    names = itertools.chain.from_iterable(
        [s] if isinstance(s, str) else s for s in slots
    )
    attributes = [getattr(value, name, None) for name in names if name != "__dict__"]
    return [*getattr(value, "__dict__", {}).values(), *attributes]


def is_array(value) -> bool:
    """Whether it is an array or a Variable."""
    return isinstance(value, _array_types())


@functools.cache
def _array_types() -> tuple[type, ...]:
    return chainer.Variable, *chainer.get_array_types()


def nodes(value) -> set[VariableNode]:
    """Returns the graph's nodes of the Variables in a nested value."""
    return {leaf.node for leaf in leaves(value) if isinstance(leaf, chainer.Variable)}


class Trace(chainer.FunctionHook):
    """Watches a forward pass: the calls of some links, and which functions take inputs.

    It leaves the inputs as they are, since not every network that takes arrays takes
    Variables. It is a hook since Chainer's graph does not tell of which array a leaf
    was made.

    Args:
        inputs: Arrays and Variables, nested as one likes.

    Attributes:
        outputs: What the first call of each link returned, by name, in the order in
            which they returned.
        counts: How often each link was called, by name.
        without_graph: The names of those first called under ``no_backprop_mode``.
    """

    name = "chainer_mmix.Trace"

    def __init__(self, inputs) -> None:
        self._arrays = [chainer.as_array(leaf) for leaf in leaves(inputs)]
        self._fed: dict[FunctionNode, set[int]] = {}
        self.outputs: dict[str, object] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.without_graph: set[str] = set()

    @contextlib.contextmanager
    def watching(self, links: Mapping[str, chainer.Link]) -> Iterator[None]:
        """Watches what happens in the ``with`` block."""
        with self, contextlib.ExitStack() as stack:
            for name, link in links.items():
                watch = functools.partial(self._watch, name)
                stack.enter_context(intercepted(link, watch))
            yield

    def _watch(self, name: str, call: Callable, *args, **kwargs):
        self.counts[name] += 1
        output = call(*args, **kwargs)
        self.outputs.setdefault(name, output)
        if self.counts[name] == 1 and not chainer.config.enable_backprop:
            self.without_graph.add(name)
        return output

    def forward_preprocess(self, function, in_data) -> None:
        fed = {
            i
            for i, array in enumerate(in_data)
            if any(_share_memory(array, x) for x in self._arrays)
        }
        if fed:
            self._fed[function] = fed

    def is_fed(self, function: FunctionNode, i: int) -> bool:
        """Whether an input of a function is an input of the network, or a view of one.

        Ask it of leaves of the graph only: what functions compute may be views too.
        """
        return i in self._fed.get(function, ())


def is_bypassed(outputs, state, is_data: Callable[[FunctionNode, int], bool]) -> bool:
    """Whether a path leads around a state to the outputs.

    Such a path starts at data, or at anything that the state itself is computed from,
    parameters and constants aside.

    Args:
        outputs: The outputs of the network, nested as one likes.
        state: The outputs of one of its links, likewise.
        is_data: Whether an input of a function, which is a leaf of the graph, is data.
    """
    stop = nodes(state)

    def takes_data(function: FunctionNode) -> bool:
        return any(
            node.creator_node is None and node not in stop and is_data(function, i)
            for i, node in enumerate(function.inputs)
        )

    around = _upstream(nodes(outputs), stop)
    if any(map(takes_data, around)):
        return True
    history = _upstream(stop)
    if around.isdisjoint(history):
        return False
    data: set[FunctionNode] = set()
    for function in sorted(history, key=lambda function: function.rank):
        creators = (node.creator_node for node in function.inputs)
        if takes_data(function) or not data.isdisjoint(creators):
            data.add(function)
    return not data.isdisjoint(around)


def kept_by(net: chainer.Link) -> dict[tuple[chainer.Link, str], VariableNode]:
    """Returns the nodes of the Variables that links keep, such as ``h`` of an LSTM.

    They are attributes, or in tuples, lists and dicts that are. Parameters are none of
    them.

    Returns:
        dict: The nodes, by the link and the name of the attribute.
    """
    return {
        (link, place): variable.node
        for link in net.links()
        for name, value in vars(link).items()
        for place, variable in _variables(name, value)
    }


_MANY = 100  # items; more are a history


def _variables(name: str, value) -> Iterator[tuple[str, chainer.Variable]]:
    if type(value) is chainer.Variable:
        yield name, value
    elif type(value) in (tuple, list, dict) and len(value) <= _MANY:
        items = value.items() if type(value) is dict else enumerate(value)
        for key, part in items:
            if type(part) in (chainer.Variable, tuple, list, dict):
                yield from _variables(f"{name}[{key!r}]", part)


def reached(starts: set[VariableNode], outputs, stop: set) -> set[VariableNode]:
    """Returns the starts from which a path leads to outputs, not through ``stop``."""
    ends = nodes(outputs)
    functions = _upstream(ends, starts | stop)
    return starts & ends.union(*(function.inputs for function in functions))


def depend(outputs, state, stop=None) -> bool:
    """Whether any of the outputs is computed from the state, or is it.

    Paths that lead through ``stop`` do not count.
    """
    wanted, ends = nodes(state), nodes(outputs)
    stop = wanted if stop is None else nodes(stop)
    return not ends.isdisjoint(wanted) or any(
        not wanted.isdisjoint(function.inputs) for function in _upstream(ends, stop)
    )


def ends_of_graph(outputs) -> set[VariableNode]:
    """Returns all nodes that lead to some outputs and are no function's output."""
    functions = _upstream(nodes(outputs))
    inputs = itertools.chain.from_iterable(function.inputs for function in functions)
    return {node for node in inputs if node.creator_node is None}


def _upstream(
    ends: Iterable[VariableNode], stop: Iterable[VariableNode] = ()
) -> set[FunctionNode]:
    """Returns the functions that lead to ``ends`` without passing ``stop``."""
    found: set[FunctionNode] = set()
    rest = [node for node in ends if node not in stop]
    while rest:
        function = rest.pop().creator_node
        if function is not None and function not in found:
            found.add(function)
            rest += [node for node in function.inputs if node not in stop]
    return found


def is_parameter(node: VariableNode) -> bool:
    """Whether it is the node of a parameter."""
    return isinstance(node.get_variable_or_none(), chainer.Parameter)


def _share_memory(a, b) -> bool:
    if type(a) is not type(b):
        return False
    return chainer.backend.get_array_module(a).may_share_memory(a, b)
