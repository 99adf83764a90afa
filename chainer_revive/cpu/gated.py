"""Gradients to which ReLU has still to be applied.

The gradient of the batch normalisation before ReLU does so in its first pass over
memory, in place where nobody else has the array.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
from chainer import Variable
from chainer.functions.activation.relu import ReLU
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.math.basic_math import Add
from chainer.functions.normalization.batch_normalization import BatchNormalization

from chainer_revive.cpu import compiled
from chainer_revive.cpu.function_node import has_own_backward, unwatched, variable
from chainer_revive.cpu.layout import covered, is_channels_last
from chainer_revive.cpu.references import is_only_holder_of_array


class Gated(list):
    """Stands for the list of one array that a Variable has, ``Variable._data``.

    Who takes the array out of it gets the gradient by the input of ReLU.

    Attributes:
        y (array): The output of ReLU; ``None`` if nothing waits any more.
        shared (bool): Whether both terms of a sum get it, so that the array must hold
            this gradient, and not the next one.
    """

    def __init__(self, gy: np.ndarray, y: np.ndarray, loops: ModuleType) -> None:
        super().__init__((gy,))
        self.y: np.ndarray | None = y
        self.shared = False
        self._loops = loops

    def __getitem__(self, i):
        if self.y is not None:
            gy, gx = list.__getitem__(self, 0), np.empty_like(self.y)
            self._loops.elementwise.relu_backward(self.y, gy, gx)
            self.set(gx)
        return list.__getitem__(self, i)

    def set(self, gx: np.ndarray) -> None:
        """Takes over what waited."""
        self.y = None
        list.__setitem__(self, 0, gx)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the gradient by the output of ReLU, and where that by the input goes.

        Both may be the same array.
        """
        alone = is_only_holder_of_array(self)
        gy = list.__getitem__(self, 0)
        return gy, gy if alone else np.empty_like(gy)


def backward(func, indexes, gys) -> tuple[Variable, ...] | None:
    """Returns gradients that wait, or ``None`` for what does not pay or cannot wait."""
    if not has_own_backward(func):
        return None
    if type(func) is ReLU:
        return _of_relu(func, gys[0])
    if type(func) is Add:
        return _of_sum(func, indexes, gys[0])
    return None


def _of_relu(func, gy: Variable) -> tuple[Variable] | None:
    if not (func._retained_output_data and _is_normalised(func.inputs[0])):
        return None
    if not unwatched():
        return None
    (y,), node = func._retained_output_data, func.outputs[0]()
    if node is not None and node.data is not y:
        return None  # The output Variable has got another array.
    array = gy.raw_array
    if not covered(array, y) or array.strides != y.strides or array.shape != y.shape:
        return None
    loops = compiled.loops(y.dtype)
    if loops is None or not is_channels_last(y):
        return None
    gx = variable(array)
    gx._data = Gated(array, y, loops)
    return (gx,)


def _of_sum(func, indexes, gy: Variable) -> tuple[Variable, ...] | None:
    if type(gy._data) is not Gated or not _is_sum(func):
        return None
    if not all([_reads(func.inputs[i]._creator_node) for i in indexes]):
        return None
    gy._data.shared = gy._data.shared or len(indexes) > 1
    return (gy,) * len(indexes)


def _is_normalised(node) -> bool:
    """Tells whether something comes out of batch normalisation, if only as a part."""
    creator = node._creator_node
    if type(creator) is Add:
        nodes = creator.inputs if _is_sum(creator) else ()
        return any([_normalises(x._creator_node) for x in nodes])
    return _normalises(creator)


def _normalises(creator) -> bool:
    return type(creator) is BatchNormalization and has_own_backward(creator)


def _reads(creator) -> bool:
    """Tells whether who gets a gradient neither keeps it nor hands it on as it is."""
    known = Add, BatchNormalization, Convolution2DFunction, ReLU
    return creator is None or (type(creator) in known and has_own_backward(creator))


def _is_sum(func) -> bool:
    """Tells whether nothing is broadcast."""
    a, b = func.inputs
    return a.shape == b.shape
