"""Finds out by calling a network what its outputs depend on.

A graph does not have all: not what is computed by NumPy, such as masks and lengths, nor
anything under ``no_backprop_mode``; and it does not tell a constant of as many rows as
there are samples from data.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import random
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping

import chainer
import numpy as np
from chainer import Link
from chainer.backends import cuda

from chainer_mmix.links.graph import intercepted, is_array, leaves
from chainer_mmix.links.names import links_of
from chainer_revive.cpu import compiled

THREAD = "chainer_mmix"  # the name of threads that draw nothing
_FEW = 4


class Probe:
    """Calls copies of a network in test mode, once as it is.

    Args:
        net (~chainer.Link): The network.
        call (callable): Calls it, as ``call(net, *args, **kwargs)``.
        args, kwargs: Its inputs.
        n (int): The batch size.

    Attributes:
        outputs: What the first call of each link returned, by name.
    """

    def __init__(self, net: Link, call: Callable, args, kwargs, n: int) -> None:
        self._net, self._call = copy_of(net), call
        self._rolled = _rolled((args, kwargs), n)
        self._inputs = args, kwargs
        self.outputs: dict[str, object] = {}

        def record(name: str, call: Callable, *args, **kwargs):
            output = call(*args, **kwargs)
            self.outputs.setdefault(name, copy.deepcopy(output))
            return output

        watches = {k: functools.partial(record, k) for k in links_of(net)}
        self._y = self._outputs(watches, args, kwargs)

    @classmethod
    def of(cls, net: Link, call: Callable, args, kwargs, n: int) -> Probe | None:
        """Returns a probe with few samples, if that works, else with all.

        It is ``None``, with a warning that says why, if copies of the network cannot be
        called.
        """
        few = reordered((args, kwargs), n, range(min(n, _FEW)))
        if n > _FEW and have_different_samples(few, _FEW):
            with contextlib.suppress(Exception):  # such as a state of the whole batch
                return cls(net, call, few[0], few[1], _FEW)
        try:
            return cls(net, call, args, kwargs, n)
        except Exception as e:  # whatever a network may raise
            _warn_of(net, e)
        return None

    def is_bypassed(self, name: str) -> bool | None:
        """Whether the samples reach the outputs in another way than through a link.

        It lets the link return what it returned, and gives the network the samples in
        another order.

        Returns:
            bool: The answer, or ``None`` if it cannot be told: the network is different
            in each call, for example, or does not call the link in test mode.
        """
        if name not in self.outputs:
            return None
        try:
            if not _equal(self._with_output_of(name, *self._inputs), self._y):
                return None
            return not _equal(self._with_output_of(name, *self._rolled), self._y)
        except Exception as e:
            _warn_of(self._net, e)
            return None

    def _with_output_of(self, name: str, args, kwargs) -> list:
        rest = [self.outputs[name]]

        def as_before(call: Callable, *args, **kwargs):
            output = call(*args, **kwargs)
            return copy.deepcopy(rest.pop()) if rest else output

        return self._outputs({name: as_before}, args, kwargs)

    def _outputs(self, watches: Mapping[str, Callable], args, kwargs) -> list:
        net = copy_of(self._net)
        links = links_of(net)
        reporter = chainer.Reporter()  # what the copies report is nobody's
        reporter.add_observers("", net.namedlinks())
        with (
            reporter,
            drawing_nothing(net.device),
            chainer.using_config("train", False),
            chainer.using_config("use_static_graph", False),
            chainer.no_backprop_mode(),
            contextlib.ExitStack() as stack,
        ):
            for name, watch in watches.items():
                stack.enter_context(intercepted(links[name], watch))
            y = self._call(net, *args, **kwargs)
        return [chainer.as_array(leaf) for leaf in leaves(y)]


def _warn_of(net: Link, e: Exception) -> None:
    reason = f"{type(e).__name__}: {e}".strip().rstrip(".:")
    warnings.warn(
        f"{type(net).__name__} cannot be copied and called in test mode, so paths "
        "around the mixing point that no graph shows, such as a mask's, are not looked "
        f"for ({reason})",
        stacklevel=2,
    )


@contextlib.contextmanager
def drawing_nothing(device: chainer.backend.Device) -> Iterator[None]:
    """Undoes what the ``with`` block draws from the global random generators.

    So a network that draws in test mode, too, draws the same in each call. While other
    threads run that may draw, nothing is undone: they would draw the same again.
    """
    threads = {t.name for t in threading.enumerate() if t != threading.current_thread()}
    if threads - {compiled.THREAD, THREAD}:
        yield
        return
    numpy_state, python_state = np.random.get_state(), random.getstate()
    on_cupy = cuda.available and device.xp is cuda.cupy
    if on_cupy:
        cupy_state = cuda.cupy.random.get_random_state()
        cuda.cupy.random.set_random_state(cuda.cupy.random.RandomState(0))
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if on_cupy:
            cuda.cupy.random.set_random_state(cupy_state)


def copy_of(net: Link) -> Link:
    """Returns a copy of a network, without the graph that its state may have.

    Parameters are shared, since a forward pass does not change them.
    """
    memo: dict[int, object] = {
        id(param): param for param in net.params(include_uninit=False)
    }
    for link in net.links():
        for name in ("schedule_manager", "static_schedule"):
            # Of static_graph, which the copy does without.
            if recorded := vars(link).get(name):
                memo[id(recorded)] = recorded
        for leaf in leaves(vars(link)):
            if isinstance(leaf, chainer.Variable) and leaf.creator_node is not None:
                memo[id(leaf)] = chainer.Variable(leaf.array.copy())
    return copy.deepcopy(net, memo)


def reordered(value, n: int, order: Iterable[int]):
    """Returns inputs with other samples of the same batch."""
    order = list(order)
    if is_array(value):
        if value.shape[:1] != (n,):
            return value
        array = chainer.as_array(value)
        xp = chainer.backend.get_array_module(array)
        array = xp.take(array, xp.asarray(order), axis=0)
        return chainer.Variable(array) if isinstance(value, chainer.Variable) else array
    if isinstance(value, dict):
        return {key: reordered(item, n, order) for key, item in value.items()}
    if isinstance(value, list) and len(value) == n and all(map(is_array, value)):
        return [value[i] for i in order]
    if isinstance(value, (list, tuple)):
        items = [reordered(item, n, order) for item in value]
        return (
            type(value)._make(items) if hasattr(value, "_make") else type(value)(items)
        )
    return value


def _rolled(value, n: int):
    return reordered(value, n, [n - 1, *range(n - 1)])


def have_different_samples(inputs, n: int) -> bool:
    """Whether each of the inputs differs among the samples."""
    return not any(
        _equal([chainer.as_array(a)], [chainer.as_array(b)])
        for a, b in zip(leaves(inputs), leaves(_rolled(inputs, n)), strict=True)
        if a.shape[:1] == (n,) and a.dtype.kind != "O"
    )


def _equal(a: list, b: list) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and bool(((x == y) | ((x != x) & (y != y))).all())
        for x, y in zip(a, b, strict=True)
    )
