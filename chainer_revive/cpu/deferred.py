"""Outputs that wait until they are needed, so that one pass computes several functions.

Batch normalisation, ReLU and sums of what convolutions made wait. When their values are
needed, one pass over memory makes them, in place where nobody else has the array. What
waits reads only arrays that nobody outside has seen, and is computed before they are
shown: whatever a user does to an array is done afterwards.

With backprop, batch normalisation takes its statistics at once, and ReLU, whose output
its gradient needs, computes all that waits before it.
"""

from __future__ import annotations

import threading
import weakref
from types import ModuleType

import numpy as np
from chainer import Variable
from chainer.functions.activation.relu import ReLU
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.math.basic_math import Add
from chainer.functions.normalization.batch_normalization import (
    BatchNormalization,
    FixedBatchNormalization,
    GeneralBatchNormalizationImpl,
    _impl_selector,
)

from chainer_revive.cpu import compiled
from chainer_revive.cpu.function_node import variable
from chainer_revive.cpu.layout import channels_last, is_channels_last
from chainer_revive.cpu.references import is_only_holder_of_array
from chainer_revive.registry import is_own

_FLOAT32 = np.dtype(np.float32)
_INTERRUPTED = "computing this was interrupted: call the network again"


class _Seen(list):
    """A list of one array, and what is still to be done with it.

    That is to normalise it, to add another array, which may have to be normalised as
    well, and ReLU.
    """

    values: np.ndarray | None = None  # mean, factor and shift (3, C)
    other: np.ndarray | None = None
    other_values: np.ndarray | None = None
    relu = False
    reads: tuple[list, ...] = ()  # the readers of each array

    def __init__(self, array: np.ndarray, loops: ModuleType) -> None:
        super().__init__((array,))
        self.loops = loops
        self.shape = array.shape  # while it is computed in place, there is no array
        self.lock = threading.RLock()
        # Weak references to those that wait and read the array.
        self.readers: list[weakref.ref[_Seen]] = []

    def wait_for_nothing(self) -> None:
        self.values = self.other = self.other_values = None
        self.relu = False
        self.reads = ()

    def waits(self) -> bool:
        return self.relu or self.values is not None or self.other is not None

    def settle(self) -> np.ndarray:
        """Computes what waits, and returns the array without showing it."""
        with self.lock:
            if self.waits():
                _compute(self)
            return list.__getitem__(self, 0)

    def then(self, values=None, relu: bool = False) -> Unseen:
        """Returns another one that waits for the same, to do something after it."""
        with self.lock:
            if values is not None:
                self.settle()
            array = list.__getitem__(self, 0)
            if array is None:
                raise RuntimeError(_INTERRUPTED)
            after = Unseen(array, self.loops)
            after.values = self.values if values is None else values
            after.relu = self.relu or relu
            after.other, after.other_values = self.other, self.other_values
            after.read(self)  # last: another thread may have it computed at once
            if type(self) is _Seen:  # by now, another thread having looked
                after.settle()
        return after

    def then_add(self, other: _Seen) -> Unseen:
        """The same with a sum; both wait for nothing but normalisation at most."""
        after = self.then()
        # First who is read, then who reads, as in ``__getitem__``.
        with other.lock, after.lock:
            array = list.__getitem__(other, 0)
            if array is None:
                raise RuntimeError(_INTERRUPTED)
            after.other, after.other_values = array, other.values
            after.read(other)
            if type(other) is _Seen:
                after.settle()
        return after

    def read(self, other: _Seen) -> None:
        """Has this one computed before arrays that the other one reads are shown."""
        for readers in other.reads if other.waits() else [other.readers]:
            self.reads += (readers,)
            readers.append(weakref.ref(self))


class Unseen(_Seen):
    """Stands for the list of one array that a Variable has, ``Variable._data``.

    Who takes the array out of it gets the values, computed.
    """

    def __getitem__(self, i):
        with self.lock:
            self.settle()
            for reader in self.readers:
                waiting = reader()
                if waiting is not None:
                    waiting.settle()
            self.__class__ = _Seen
        return list.__getitem__(self, i)

    def __setitem__(self, i, array):
        with self.lock:
            self.wait_for_nothing()
            self.__class__ = _Seen
            list.__setitem__(self, i, array)


def _compute(data: _Seen) -> None:
    if list.__getitem__(data, 0) is None:
        raise RuntimeError(_INTERRUPTED)
    alone = is_only_holder_of_array(data)
    x = list.__getitem__(data, 0)
    if alone:  # if this is interrupted, half of the values are of no use
        list.__setitem__(data, 0, None)
    y = x if alone else np.empty_like(x)
    c = x.shape[1]
    other = data.other
    data.loops.batch_normalization.finish(
        channels_last(x).reshape(-1, c),
        data.values,
        None if other is None else channels_last(other).reshape(-1, c),
        data.other_values,
        data.relu,
        channels_last(y).reshape(-1, c),
    )
    data.wait_for_nothing()
    list.__setitem__(data, 0, y)


def mark(function, inputs: list[Variable], outputs: tuple[Variable, ...]) -> None:
    """Notes that nobody has seen the output of a function, or that it waits."""
    if type(function) is BatchNormalization:
        values, _later.values = _later.values, None
        if values is not None:
            outputs[0]._data = inputs[0]._data.then(values=values)
        return
    if type(function) is not Convolution2DFunction:
        return
    (y,) = outputs
    (array,) = y._data
    loops = compiled.loops(array.dtype)
    if (
        loops
        and array.base is not None
        and array.base.flags.owndata
        and is_channels_last(array)
    ):
        y._data = Unseen(array, loops)


def array_for(function, x: Variable) -> np.ndarray:
    """Returns the array of an input, which functions that only read do not show."""
    data = x._data
    if type(data) is Unseen and _only_reads(function):
        return data.settle()
    return data[0]


def _only_reads(function) -> bool:
    if type(function) is BatchNormalization:
        # Another one shows it to code of the user's, or does more with the output.
        if function._impl_selector is not _impl_selector:
            return False
        if not is_own(GeneralBatchNormalizationImpl.forward):
            return False
    elif type(function) not in (Convolution2DFunction, ReLU):
        return False
    return _has_own_methods(function)


def _has_own_methods(function) -> bool:
    """Tells whether no user has put a method in place of one that computes."""
    cls = type(function)
    return (
        is_own(cls.forward, cls.forward_cpu)
        and "forward" not in function.__dict__
        and "forward_cpu" not in function.__dict__
    )


def forward(function, inputs: list[Variable], arrays: tuple[np.ndarray, ...]):
    """Returns ``function.forward(arrays)``; batch normalisation may wait.

    It then returns its input, and :func:`mark` must follow.
    """
    if type(function) is not BatchNormalization:
        return function.forward(arrays)
    _later.values = None
    # It is still unseen if the function only reads.
    _later.may_wait = type(inputs[0]._data) is Unseen
    try:
        return function.forward(arrays)
    finally:
        _later.may_wait = False


class _Later(threading.local):
    """What :func:`forward`, :func:`leave` and :func:`mark` tell each other."""

    may_wait = False
    values: np.ndarray | None = None


_later = _Later()


def may_wait() -> bool:
    """Tells whether the function that runs may leave its output to later."""
    return _later.may_wait


def leave(values: np.ndarray) -> None:
    """Leaves (x - mean) * factor + shift to later; values are (3, C)."""
    _later.values = values


def apply(function, inputs, backprop: bool) -> Variable | None:
    """Returns an output that waits, or ``None`` for what cannot wait.

    With backprop, the graph does not know of it yet.
    """
    wait = (_WAITING_WITH_BACKPROP if backprop else _WAITING).get(type(function))
    first = inputs[0]
    if wait is None or not isinstance(first, Variable):
        return None
    if type(first._data) is not Unseen or not _has_own_methods(function):
        return None
    data = wait(function, first._data, *inputs[1:])
    if data is None:
        return None
    requires_grad = any([isinstance(x, Variable) and x._requires_grad for x in inputs])
    with data.lock:  # else it may be without its array
        y = variable(list.__getitem__(data, 0), requires_grad)
        y._data = data
    return y


def _relu(function, x: Unseen) -> Unseen:
    return x.then(relu=True)


def _relu_with_backprop(function, x: Unseen) -> Unseen | None:
    if not x.waits():
        return None
    y = x.then(relu=True)
    function.retain_outputs((0,))
    function._retained_output_data = (y.settle(),)
    return y


def _add(function, a: Unseen, b) -> Unseen | None:
    b = b._data if isinstance(b, Variable) else None
    if type(b) is not Unseen or a.shape != b.shape:
        return None
    for x in (a, b):
        if x.relu or x.other is not None:
            x.settle()
    if b.waits() and not a.waits():  # more likely to be needed no more
        a, b = b, a
    return a.then_add(b)


def _normalise(function, x: Unseen, *parameters) -> Unseen | None:
    if function.axis not in (None, (0, 2, 3)) or type(function.eps) is not float:
        return None
    arrays = [p.array if isinstance(p, Variable) else p for p in parameters]
    shape = (x.shape[1],)
    for a in arrays:
        if type(a) is not np.ndarray or a.dtype != _FLOAT32 or a.shape != shape:
            return None
        if not a.flags.c_contiguous:
            return None
    gamma, beta, mean, var = arrays
    given = x.loops.batch_normalization.given(mean, var, gamma, beta, function.eps)
    return x.then(values=given)


_WAITING = {ReLU: _relu, Add: _add, FixedBatchNormalization: _normalise}
_WAITING_WITH_BACKPROP = {ReLU: _relu_with_backprop, Add: _add}
