"""Records what a function does in compiled loops, and does it again in one call.

It is to a CPU what :mod:`chainer_revive.cuda.graphs` is to a GPU.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import gc
import hashlib
import operator
import pickle
import random
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from itertools import chain
from numbers import Number
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

import chainer
import numpy as np

from chainer_revive.cpu import compiled, heap, steps
from chainer_revive.cpu.buffers import LINE, of_thread
from chainer_revive.cpu.function_node import settings, watched, winograd_wanted
from chainer_revive.cpu.recording import Plan, Recording, View
from chainer_revive.same import Same

Result = TypeVar("Result")

_FLOAT32 = np.dtype(np.float32)
_PROOFS = 2  # how often what is done again must be the same, bit for bit


class CpuGraphs:
    """Records functions, and does them again in memory that they share.

    No two of them run at the same time.

    Args:
        links (callable): Returns the links that the functions compute with, or with
            ``True`` also those that these hold otherwise than as children. Functions
            may change persistent arrays of them, such as running averages.
        fixed (bool): Whether parameters stay as they are until :meth:`free`. What is
            computed from them alone is computed once then. The default is ``False``.

    Raises:
        ValueError: If there are no compiled loops.
    """

    keeps_arrays = False  # It records anew for another array of a parameter.

    def __init__(
        self, links: Callable[..., Iterable[chainer.Link]], fixed: bool = False
    ) -> None:
        if compiled.loops(_FLOAT32) is None:
            raise ValueError(
                "steps can be recorded where compiled loops compute: install Numba "
                '(pip install "chainer-mmix[fast]"), and leave CHAINER_MMIX_CPU unset'
            )
        self._links = links
        self._fixed = fixed
        self._known: dict[Hashable, np.ndarray] = {}  # computed once
        self._read_then: list[Any] = []  # links and their arrays
        self._version = 0
        self._lasting: dict[chainer.Link, tuple] = {}  # and their attributes
        self._attributes_then: list[Any] = []
        self._everywhere = False  # whether links are read that are no children
        self._memory = np.empty(0, np.uint8)
        self._plans: weakref.WeakSet[Plan] = weakref.WeakSet()

    def setting(self, function: Callable | None = None) -> tuple | None:
        """Returns what a record depends on besides the function that is recorded.

        That is the configuration, the number of threads, and attributes of links, and
        of a user's classes, that are numbers, words or functions, or some of them, or
        objects that have such attributes. It is ``None`` if a hook, debug mode or a
        static graph looks on, or the loops are switched off.

        Args:
            function (callable): What that one calls, perhaps a function of a user's
                with such attributes and closures.
        """
        loops = compiled.loops(_FLOAT32)
        own, common = settings()
        if loops is None or watched(own, common) or chainer._get_link_hooks():
            return None
        links = _all_of(self._links(self._everywhere))
        read = [*links, *(value for *_, value in _arrays_of(links))]
        if _others(read, self._read_then):
            self._read_then = read
            self._version += 1
            for plan in self._plans:
                plan.clear()
            self._known.clear()
            self._lasting.clear()
        kinds = dict.fromkeys(map(type, links))
        classes = dict.fromkeys(c for kind in kinds for c in _own_classes(kind))
        return (
            *(loops.threads.count(), winograd_wanted(), of_thread.name, self._version),
            *[_items(values, 3) for values in (own, vars(common))],
            *[_items(vars(cls), 3) for cls in classes],
            *self._attributes_of(links),
            _plain(function, 3),
        )

    def _attributes_of(self, links: list[chainer.Link]) -> list[tuple]:
        now = _objects(self._lasting)
        if not self._lasting or _others(now, self._attributes_then):
            lasting = [link for link in links if _lasts(link)]
            self._attributes_then = _objects(lasting)
            self._lasting = {link: _attributes(link) for link in lasting}
        return [self._lasting.get(link) or _attributes(link) for link in links]

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """Does nothing."""
        yield

    def capture(
        self, function: Callable[[], Result], inputs: Iterable[np.ndarray]
    ) -> Callable[[], Result]:
        """Records a function, and undoes what it does to the links.

        Args:
            function (callable): Returns arrays in tuples, lists and dictionaries.
            inputs (iterable of arrays): What it reads, besides arrays of the links.

        Returns:
            callable: Does it, and returns what the function returned, in memory that
            the next call uses again. The first calls also compare both, with numbers of
            the links that are changed meanwhile, and raise a
            :class:`~chainer_revive.cpu.steps.CannotReplayError` unless all bits agree.

        Raises:
            CannotReplayError: If the function changes the inputs, or links otherwise
                than in their arrays, or reads other arrays.
        """
        inputs = list(inputs)
        links = _all_of(self._links(True))
        self._everywhere = len(links) > len(_all_of(self._links()))
        every = [*_arrays_of(links)]
        fixed = [a for owner, _, a in every if isinstance(owner, chainer.Parameter)]
        given = [*inputs, *(a for *_, a in every)]
        recording = Recording(given, fixed if self._fixed else ())
        with _unchanged(links, inputs), steps.recorded_by(recording):
            result = _each(np.ndarray, recording.result, function())
        gc.collect()
        plan = recording.plan()
        self._plans.add(plan)
        proofs = 0

        def replay() -> Result:
            nonlocal proofs
            if proofs < _PROOFS:
                self._prove(function, links, inputs, plan, result)
                proofs += 1
            self._reserve(plan.size)
            averages = _persistent(links)
            before = _copies(averages)
            try:
                plan.run(self._memory, self._known)
            except BaseException:
                _restore(averages, before)
                raise
            return _each(View, plan.array, result)

        return replay

    def free(self) -> None:
        """Frees the memory in which functions are done again, until the next time.

        Gradients of the links that lie there are cleared.
        """
        for plan in self._plans:
            plan.unbind()
        self._known.clear()
        if not len(self._memory):
            return
        for root in self._links():
            for param in root.params():
                if _has_gradient_in(param, self._memory):
                    param.cleargrad()
        self._memory = np.empty(0, np.uint8)
        heap.give_back()

    def _reserve(self, size: int) -> None:
        if len(self._memory) < size:
            self.free()
            heap.give_back()  # what usual steps have left
            memory = np.empty(size + LINE, np.uint8)
            first = -memory.ctypes.data % LINE
            self._memory = memory[first : first + size]

    def _prove(self, function: Callable, links, inputs, plan: Plan, result) -> None:
        """Sees whether a plan does what a function does, with other numbers.

        Raises:
            CannotReplayError: If it does not.
        """
        self.free()
        with _unchanged(links, inputs):
            _disturb(links)
            try:
                with _read_only(_plain_arrays(links)):
                    wanted = _values(function(), links)
            except Exception as error:
                reason = f"with other parameters: {type(error).__name__}: {error}"
                if "read-only" in reason:
                    reason = f"it changes {_OTHERS}"
                raise steps.CannotReplayError(reason) from error
        self._reserve(plan.size)
        known: dict[Hashable, np.ndarray] = {}  # of these parameters, for no other plan
        for _ in range(2 if plan.once else 1):
            plan.forget(self._memory)
            with _unchanged(links, inputs):
                _disturb(links)
                plan.run(self._memory, known)
                found = _values(_each(View, plan.array, result), links)
            if found != wanted:
                raise steps.CannotReplayError(
                    "not all of its numbers are computed in compiled loops or functions"
                )
        plan.unbind()


def _has_gradient_in(param: chainer.Parameter, memory: np.ndarray) -> bool:
    grad = param.grad if param.is_initialized else None
    return grad is not None and np.may_share_memory(grad, memory)


def _all_of(roots: Iterable[chainer.Link]) -> list[chainer.Link]:
    return [*dict.fromkeys(link for root in roots for link in root.links())]


def _arrays_of(links: Iterable[chainer.Link]) -> Iterator[tuple[Any, str, np.ndarray]]:
    """Yields where arrays of parameters and persistent ones are, and the arrays."""
    for link in links:
        for name in link._params:
            param = link.__dict__[name]
            if type(array := param.array) is np.ndarray:
                yield param, "array", array
        yield from _persistent_of(link)


def _persistent_of(link: chainer.Link) -> Iterator[tuple[Any, str, np.ndarray]]:
    for name in link._persistent:
        if type(array := link.__dict__[name]) is np.ndarray:
            yield link, name, array


def _persistent(links: Iterable[chainer.Link]) -> list[np.ndarray]:
    return [array for link in links for *_, array in _persistent_of(link)]


def _others(now: list[Any], then: list[Any]) -> bool:
    """Tells whether some are other objects than they were."""
    return len(now) != len(then) or any(map(operator.is_not, now, then))


# What classifiers keep of a step.
_OF_A_STEP = {"y", "loss", "accuracy", "draw", "_last_draw", "_scores"}
_LISTED = {"_params", "_persistent", "_children"}  # names of what is looked at
_PLAIN = {bool, int, float, str, complex, bytes, range, type(None)}
_LASTING = np.dtype, chainer.Link, chainer.Parameter, chainer.backend.Device
_MANY = 100  # items; more are data


def _attributes(link: chainer.Link) -> tuple:
    """Returns what tells the numbers, words and functions of a link from others."""
    own = vars(link)
    left_out = _LISTED
    if isinstance(link, chainer.links.Classifier):
        left_out = _LISTED | _OF_A_STEP
    if isinstance(link, chainer.Chain):
        left_out = left_out | own["_children"]
    params = own["_params"]
    return tuple(own), *[
        value
        if type(value) in _PLAIN
        else None
        if name in params or name in left_out
        else _plain(value, 3)
        for name, value in own.items()
    ]


def _lasts(link: chainer.Link) -> bool:
    """Tells whether attributes say the same as long as they are the same objects."""
    return all(
        [
            type(value) in _PLAIN
            or name in _LISTED
            or isinstance(value, _LASTING)
            or (type(value) is tuple and all([type(v) in _PLAIN for v in value]))
            or (type(value) is np.ndarray and value.dtype == _FLOAT32)
            for name, value in vars(link).items()
        ]
    )


def _objects(links: Iterable[chainer.Link]) -> list[Any]:
    """Returns the attributes of links, and their names."""
    own = [*map(vars, links)]
    values = map(dict.values, own)
    return [*map(len, own), *chain.from_iterable(own), *chain.from_iterable(values)]


@functools.lru_cache(256)
def _own_classes(cls: type) -> tuple[type, ...]:
    """Returns the classes of a user's of which a class is made."""
    common = "chainer", "chainer_mmix", "chainermn", "builtins", "abc"
    return tuple([c for c in cls.__mro__ if c.__module__.split(".")[0] not in common])


def _plain(value: Any, depth: int) -> Any:
    """Returns what tells a number, a word, a function or some of them from others.

    Of links and parameters, it tells which they are.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is tuple and depth and len(value) <= _MANY:  # most of what links have
        return _each_plain(value, depth - 1)
    if kind is np.ndarray:  # Steps follow what becomes of numbers that are not whole.
        few = value.size <= _MANY and value.dtype.kind in "biu"
        return (value.dtype, value.shape, value.tobytes()) if few else None
    if isinstance(value, np.dtype):
        return value
    if isinstance(value, (chainer.Link, chainer.Parameter)):
        return Same(value)  # one of several that are looked at themselves
    if isinstance(value, chainer.Variable) or not depth:
        return None
    if isinstance(value, np.generic):
        return value.item()
    if kind is slice:
        return _each_plain((value.start, value.stop, value.step), depth)
    if isinstance(value, enum.Enum):
        return Same(value)
    if isinstance(value, (tuple, list, deque, dict, set, frozenset)):
        if len(value) > _MANY:
            return None
        if isinstance(value, dict):
            return _items(value, depth - 1)
        items = _each_plain(value, depth - 1)
        return kind, frozenset(items) if isinstance(value, (set, frozenset)) else items
    if kind is functools.partial:
        held = value.func, value.args, value.keywords
        return _each_plain(held, depth - 1)
    if kind is MethodType:
        return _each_plain((value.__func__, value.__self__), depth - 1)
    if kind is FunctionType:
        held = value.__defaults__, value.__kwdefaults__, vars(value)
        cells = [_content(cell) for cell in value.__closure__ or ()]
        return Same(value), *_each_plain((*held, *cells), depth - 1)
    if isinstance(value, ModuleType):
        return Same(value)
    slots = _slots(kind)
    if not slots and not hasattr(value, "__dict__"):
        if isinstance(value, Number):  # a Decimal, say
            return value
        if isinstance(value, Mapping):
            return _items(value, depth - 1)
        return Same(value) if callable(value) else None
    held = {
        **getattr(value, "__dict__", {}),
        **{k: getattr(value, k, None) for k in slots},
    }
    own = [_items(each, depth - 1) for each in (held, *map(vars, _own_classes(kind)))]
    if not callable(value):
        return kind, *own
    # A copy does the same if all that it has is known.
    known = all([type(v) in _PLAIN for v in held.values()])
    return kind if known and not isinstance(value, type) else Same(value), *own


@functools.lru_cache(256)
def _slots(cls: type) -> tuple[str, ...]:
    """Returns the names of attributes that lie outside of ``__dict__``."""
    every = [vars(c).get("__slots__", ()) for c in cls.__mro__]
    names = [name for s in every for name in ((s,) if isinstance(s, str) else s)]
    return tuple([name for name in names if not name.startswith("__")])


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # an empty one
        return None


def _items(values: Mapping[Any, Any], depth: int) -> tuple:
    names = tuple([k if type(k) in _PLAIN else Same(k) for k in values])
    return names, *_each_plain(values.values(), depth)


def _each_plain(values: Iterable[Any], depth: int) -> tuple:
    return tuple([v if type(v) in _PLAIN else _plain(v, depth) for v in values])


def _disturb(links: Iterable[chainer.Link]) -> None:
    """Changes parameters and persistent arrays a little, always by the same."""
    generator = np.random.default_rng(0)
    for *_, array in _arrays_of(links):
        if array.dtype.kind == "f":
            change = generator.random(array.shape, np.float32)
            change *= 0.2
            change += 0.9
            array *= change
            change *= 1e-3
            array += change  # so that zero is not left zero


def _values(result: Any, links: Iterable[chainer.Link]) -> list[bytes]:
    """Returns the bits of a result, and of the links' arrays."""
    arrays: list[np.ndarray] = []
    _each(np.ndarray, arrays.append, result)
    return [_digest(array) for array in (*arrays, *(a for *_, a in _arrays_of(links)))]


@contextlib.contextmanager
def _unchanged(links: list[chainer.Link], inputs: list[np.ndarray]) -> Iterator[None]:
    """A context at whose end links and inputs are what they were.

    Raises:
        CannotReplayError: If more than the numbers in arrays of the links was changed.
    """
    attributes = [_lasting(link) for link in links]
    own = [value for values in attributes for value in values.values()]
    arrays = [array for *_, array in _arrays_of(links)]
    plain = _plain_arrays(links)
    numbers, given = _copies(arrays), _copies([*inputs, *plain])
    params = [(p, p.array) for link in links for p in link.params(False)]
    states = [(value, state_of(value)) for value in own if isinstance(value, RANDOM)]
    changed = []
    try:
        yield
    finally:
        for link, before in zip(links, attributes, strict=True):
            now = _lasting(link)
            for name in {*before, *now}:
                if name in before and name in now and before[name] is now[name]:
                    continue
                changed.append(f"{name} of {type(link).__name__}")
                vars(link).pop(name, None)
                if name in before:
                    vars(link)[name] = before[name]
        for param, array in params:
            if param.array is not array:
                param.array = array
                changed.append(f"the array of {param.name}")
        for generator, state in states:
            if state_of(generator) != state:
                set_state(generator, state)
                changed.append(f"the state of a {type(generator).__name__}")
        if any(map(_differ, [*inputs, *plain], given)):
            changed.append(_OTHERS)
        _restore(arrays, numbers)
        _restore([*inputs, *plain], given)
    if changed:
        raise steps.CannotReplayError(f"it changes {', '.join(changed)}")


_OTHERS = "its inputs, or arrays that are no persistent values"


def _plain_arrays(links: Iterable[chainer.Link]) -> list[np.ndarray]:
    """Returns the arrays of links that are neither parameters nor persistent."""
    known = {id(array) for *_, array in _arrays_of(links)}
    own = [value for link in links for value in _lasting(link).values()]
    plain = [v for v in own if type(v) is np.ndarray and id(v) not in known]
    return [array for array in plain if array.flags.writeable]


@contextlib.contextmanager
def _read_only(arrays: list[np.ndarray]) -> Iterator[None]:
    """A context in which arrays cannot be written to, even with what they have."""
    for array in arrays:
        array.flags.writeable = False
    try:
        yield
    finally:
        # A view must not be writeable before the array whose memory it has.
        for array in sorted(arrays, key=lambda array: array.base is not None):
            array.flags.writeable = True


def _lasting(link: chainer.Link) -> dict[str, Any]:
    """Returns the attributes of a link, without the graph that a step leaves."""
    left_out = _OF_A_STEP if isinstance(link, chainer.links.Classifier) else ()
    return {k: v for k, v in vars(link).items() if k not in left_out}


RANDOM = np.random.RandomState, np.random.Generator, random.Random


def state_of(generator: Any) -> bytes:
    """Returns the state of one of :data:`RANDOM`."""
    if isinstance(generator, random.SystemRandom):
        return b""  # It has none.
    if isinstance(generator, np.random.Generator):
        return pickle.dumps(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return pickle.dumps(generator.get_state())
    return pickle.dumps(generator.getstate())


def set_state(generator: Any, state: bytes) -> None:
    """Puts a generator back into a state that is not empty."""
    value = pickle.loads(state)
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = value
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(value)
    else:
        generator.setstate(value)


def _differ(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() != b.tobytes()


def _copies(arrays: list[np.ndarray]) -> list[np.ndarray]:
    return [array.copy() for array in arrays]


def _restore(arrays: list[np.ndarray], numbers: list[np.ndarray]) -> None:
    for array, values in zip(arrays, numbers, strict=True):
        array[...] = values


def _digest(array: np.ndarray) -> bytes:
    """Returns what tells the bits of an array from others."""
    return hashlib.blake2b(np.ascontiguousarray(array)).digest()


def _each(kind: type, function: Callable, result: Any) -> Any:
    """Returns a result in which a function has been applied to all of some class."""
    if isinstance(result, kind):
        return function(result)
    if isinstance(result, dict):
        return {key: _each(kind, function, value) for key, value in result.items()}
    if isinstance(result, (list, tuple)):
        values = [_each(kind, function, value) for value in result]
        if isinstance(result, list):
            return values
        return type(result)(*values) if hasattr(result, "_fields") else tuple(values)
    return result
