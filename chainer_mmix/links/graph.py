"""What a forward pass does: which links it calls, which ways lead to its outputs."""

from __future__ import annotations

import collections
import contextlib
import functools
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
    own = type(link)
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


def leaves(value) -> list:
    """Returns the arrays and Variables in nested tuples, lists and dicts."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value] if is_array(value) else []


def is_array(value) -> bool:
    """Whether it is an array or a Variable."""
    return isinstance(value, (chainer.Variable, *chainer.get_array_types()))


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
    """

    name = "chainer_mmix.Trace"

    def __init__(self, inputs) -> None:
        self._arrays = [chainer.as_array(leaf) for leaf in leaves(inputs)]
        self._nodes = nodes(inputs)
        self._fed: dict[FunctionNode, list[int]] = {}
        self.outputs: dict[str, object] = {}
        self.counts: collections.Counter[str] = collections.Counter()

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
        return output

    def forward_preprocess(self, function, in_data) -> None:
        fed = [
            i
            for i, array in enumerate(in_data)
            if any(_share_memory(array, x) for x in self._arrays)
        ]
        if fed:
            self._fed[function] = fed

    def is_bypassed(self, outputs, state, n: int) -> bool:
        """Whether a way leads around a state to the outputs.

        Such a way starts at an input, or at anything that the state itself is computed
        from, parameters and constants aside.

        Args:
            outputs: The outputs of the network, nested as one likes.
            state: The outputs of one of its links, likewise.
            n (int): The batch size: data have that many rows, constants do not.
        """
        stop = nodes(state)
        around = _upstream(nodes(outputs), stop)
        data: set[FunctionNode] = set()
        for function in sorted(_upstream(stop), key=lambda function: function.rank):
            if self._takes_input(function) or any(
                _is_data(node, n, data) for node in function.inputs
            ):
                data.add(function)
        return any(
            self._takes_input(function) or function in data for function in around
        )

    def _takes_input(self, function: FunctionNode) -> bool:
        # What comes from another function may be a view of an input.
        return not self._nodes.isdisjoint(function.inputs) or any(
            function.inputs[i].creator_node is None for i in self._fed.get(function, ())
        )


def depend(outputs, state) -> bool:
    """Whether any of the outputs is computed from the state, or is it."""
    stop, ends = nodes(state), nodes(outputs)
    return not ends.isdisjoint(stop) or any(
        not stop.isdisjoint(function.inputs) for function in _upstream(ends, stop)
    )


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


def _is_data(node: VariableNode, n: int, data: set[FunctionNode]) -> bool:
    if node.creator_node is not None:
        return node.creator_node in data
    is_parameter = isinstance(node.get_variable_or_none(), chainer.Parameter)
    return node.shape[:1] == (n,) and not is_parameter


def _share_memory(a, b) -> bool:
    if type(a) is not type(b):
        return False
    return chainer.backend.get_array_module(a).may_share_memory(a, b)
