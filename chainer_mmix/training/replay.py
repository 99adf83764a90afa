"""What is captured once and replayed, for batches in the same arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import chainer
import numpy as np
from chainer import backend

from chainer_mmix.links.links_in import links_in
from chainer_mmix.mixing import MixupDraw
from chainer_mmix.mixing.weights import DeviceWeights
from chainer_mmix.training.generators import generators_of
from chainer_revive.cpu.graphs import set_state, state_of
from chainer_revive.cpu.steps import CannotReplayError

Result = TypeVar("Result")

MANY = 100  # graphs
_N_TRY = 3  # since another thread may draw random numbers meanwhile


def links_of(
    target: chainer.Link, model: Callable, everywhere: bool = False
) -> list[chainer.Link]:
    """Returns the links that a model computes with.

    Args:
        target (~chainer.Link): What has the parameters.
        model (callable): A classifier, or another function that calls the target.
        everywhere (bool): Whether to return also the links in attributes of these. The
            default is ``False``.
    """
    used = (getattr(model, name, None) for name in ("lossfun", "accfun"))
    roots = [target, *links_in((model, *used))]
    if everywhere:
        for link in [link for root in roots for link in root.links()]:
            for value in vars(link).values():
                roots += links_in(value)
    return [*dict.fromkeys(roots)]


def reported(
    observation: dict, xp, host: tuple[str, ...] = ()
) -> dict[str, tuple[bool, Any]]:
    """Returns the arrays of what was reported, and whether they were variables.

    Args:
        observation (dict): What was reported.
        xp: The module of the arrays.
        host (tuple of str): What may be a number of the host.

    Raises:
        TypeError: If another value is one.
    """
    values = {
        name: (isinstance(value, chainer.Variable), chainer.as_array(value))
        for name, value in observation.items()
    }
    for name, (_, value) in values.items():
        if name not in host and not isinstance(value, xp.ndarray):
            raise TypeError(f"{name} is reported as a number of the host")
    return values


def copied(values: dict[str, tuple[bool, Any]]) -> dict[str, Any]:
    """Returns values to report: copies, since a replay writes to the same place."""
    found = {}
    for name, (is_variable, value) in values.items():
        own = value if type(value) is float else value.copy()
        found[name] = chainer.Variable(own) if is_variable else own
    return found


def capture(
    graphs, compute: Callable[[], Result], inputs: list, roots: Iterable[Any] = ()
) -> Callable[[], Result]:
    """Captures what a function computes.

    Args:
        graphs: What captures.
        compute (callable): The function.
        inputs (list of arrays): What it reads.
        roots (iterable): What it computes with. Random generators that these reach are
            put back if it draws from them.

    Raises:
        CannotReplayError: If it cannot be captured, for whatever reason.
    """
    generators = generators_of(roots)
    before = then = [*map(state_of, generators)]
    for _ in range(_N_TRY):
        error = None
        try:
            replay = _capture(graphs, compute, inputs)
        except CannotReplayError as e:
            error = e
        now = [*map(state_of, generators)]
        if now == then:  # What moved earlier was moved by another thread.
            if error is not None:
                raise error
            return replay
        then = now
    for generator, first, last in zip(generators, before, then, strict=True):
        if last != first:
            set_state(generator, first)
    raise error or CannotReplayError("the forward computation draws random numbers")


def _capture(graphs, compute, inputs):
    try:
        return graphs.capture(compute, inputs)
    except CannotReplayError:
        raise
    except Exception as e:
        raise CannotReplayError(f"{type(e).__name__}: {e}") from e


class Kind(Generic[Result]):
    """Steps, or batches, of a kind: what they compute may be replayed by one graph."""

    def __init__(self) -> None:
        self.n = 0  # there have been
        self.replay: Callable[[], Result] | None = None  # once it is captured


class Static:
    """What a graph reads, in the same arrays in each replay."""

    def __init__(self, args: tuple, kwargs: dict) -> None:
        self.args = tuple(map(_empty_like, args))
        self.kwargs = {name: _empty_like(array) for name, array in kwargs.items()}
        self._strides = [a.strides for a in (*args, *kwargs.values())]
        self.weights: Any = None  # DeviceWeights, once a step is mixed
        self.scale: Any = None
        self._owned: dict[tuple[int, str], tuple[Any, Any]] = {}

    def fits(self, args: tuple, kwargs: dict) -> bool:
        """Tells whether the inputs are laid out in memory like the first ones."""
        if len(args) != len(self.args) or kwargs.keys() != self.kwargs.keys():
            return False
        return all(
            array.shape == own.shape
            and array.dtype == own.dtype
            and array.strides == strides
            for (array, own), strides in zip(
                self._pairs(args, kwargs), self._strides, strict=True
            )
        )

    def _every(self) -> list:
        return [*self.args, *self.kwargs.values()]

    def arrays(self) -> list:
        """Returns all arrays of inputs."""
        arrays = self._every()
        if self.weights is not None:
            arrays.append(self.weights.memory)
        return arrays if self.scale is None else [*arrays, self.scale]

    def fill(self, args: tuple, kwargs: dict, draw, scale) -> None:
        """Takes over the numbers of a step."""
        for array, own in self._pairs(args, kwargs):
            own[...] = array
        if draw is not None:
            if self.weights is None:
                device = backend.get_device_from_array(*self._every())
                self.weights = DeviceWeights(len(draw.perm), device)
            self.weights.fill(draw.lam, draw.perm)
        if scale is not None:
            if self.scale is None:
                xp = backend.get_array_module(*self._every())
                self.scale = xp.empty((), np.float32)
            self.scale[...] = scale

    def keep_arrays(self, target: chainer.Link) -> None:
        """Puts parameters and persistent arrays back where graphs read them.

        Chainer's update of half precision replaces arrays, for one.
        """
        for owner, name, array in _arrays(target):
            _, own = self._owned.setdefault((id(owner), name), (owner, array))
            if array is not own:
                own[...] = array
                setattr(owner, name, own)

    def draw(self, layer) -> MixupDraw:
        """Returns the draw that is in the weights."""
        return MixupDraw(layer, self.weights, self.weights.perm)

    def _pairs(self, args: tuple, kwargs: dict) -> Iterator[tuple]:
        yield from zip(args, self.args, strict=True)
        for name, own in self.kwargs.items():
            yield kwargs[name], own


def initialized(target: chainer.Link) -> list[chainer.Parameter]:
    """Returns the parameters that have arrays."""
    return [param for param in target.params() if param.is_initialized]


def _arrays(target: chainer.Link) -> Iterator[tuple[Any, str, Any]]:
    """Yields where arrays of parameters and persistent ones are, and the arrays."""
    for param in initialized(target):
        yield param, "array", param.array
    for link in target.links():
        for name in link._persistent:
            value = link.__dict__[name]
            if isinstance(value, chainer.get_array_types()):
                yield link, name, value


def _empty_like(array):
    return backend.get_array_module(array).empty_like(array)
