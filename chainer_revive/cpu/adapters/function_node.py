"""What Chainer does around each function, without what NumPy arrays do not need.

A step of a small network spends most of its time there.
"""

from __future__ import annotations

import functools
import weakref

import chainer
import numpy as np
from chainer import FunctionNode, Variable
from chainer.functions.activation.relu import ReLU
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.connection.linear import LinearFunction
from chainer.functions.loss.softmax_cross_entropy import SoftmaxCrossEntropy
from chainer.functions.math.average import Mean
from chainer.functions.normalization.batch_normalization import BatchNormalization
from chainer.functions.pooling.max_pooling_nd import MaxPoolingND
from chainer.variable import VariableNode

from chainer_revive import registry
from chainer_revive.cpu import deferred, steps
from chainer_revive.cpu.function_node import settings, variable, watched
from chainer_revive.explain import declined


def apply(self, inputs):
    """For ``FunctionNode``."""
    own, common = settings()
    if not inputs or self._local_function_hooks or watched(own, common):
        return declined("a hook, debug mode or a schedule needs Chainer's own")
    backprop = own.get("enable_backprop", common.enable_backprop)
    if (y := deferred.apply(self, inputs, backprop)) is not None:
        if backprop:
            self._input_layouts = (None,) * len(inputs)
            _connect(
                self, inputs, (), (y,), own.get("lazy_grad_sum", common.lazy_grad_sum)
            )
        return (y,)
    variables, in_data = [], []
    requires_grad = False
    for x in inputs:
        if isinstance(x, Variable):
            array = deferred.array_for(self, x)
            if x._layout is not None:
                return declined("an input has a memory layout of Chainer's")
        else:
            array = x
        if type(array) is not np.ndarray:
            return declined("an input is no NumPy array")
        if array is x:
            x = variable(array, requires_grad=False)
        else:
            requires_grad = requires_grad or x._requires_grad
        variables.append(x)
        in_data.append(array)
    in_data = tuple(in_data)
    self._input_layouts = (None,) * len(variables)
    if own.get("type_check", common.type_check):
        _check_types(self, in_data)
    if type(self).check_layout_forward not in _FINE_WITHOUT_LAYOUTS:
        self.check_layout_forward(variables)

    self._input_indexes_to_retain = None
    self._output_indexes_to_retain = None
    if (record := steps.recorder()) is None:
        outputs = deferred.forward(self, variables, in_data)
    else:
        compute = functools.partial(deferred.forward, self, variables, in_data)
        outputs = record.call(self, in_data, compute)
    if not _plain(self, outputs):
        return _finish_as_chainer(self, inputs, outputs)

    ret = tuple([variable(y, requires_grad) for y in outputs])
    if backprop:
        if (retained := self._output_indexes_to_retain) is not None:
            self._output_indexes_to_retain = retained = tuple(retained)
            self._retained_output_data = tuple([outputs[index] for index in retained])
        lazy = own.get("lazy_grad_sum", common.lazy_grad_sum)
        _connect(self, variables, in_data, ret, lazy)
    deferred.mark(self, variables, ret)
    return ret


def _connect(self, variables, in_data, outputs, lazy_grad_sum) -> None:
    """Puts a function between the variables of a graph."""
    self._output_layouts = (None,) * len(outputs)
    self._output_count = len(outputs)
    self.inputs = inputs = tuple([x._node for x in variables])
    self.rank = rank = max([node._rank for node in inputs])
    nodes = [y._node for y in outputs]
    references = []
    for node in nodes:
        node._creator_node = self
        node._rank = rank + 1
        references.append(weakref.ref(node))
    self.outputs = tuple(references)
    # Without a look at the arrays of variables, as ``retain_data`` takes.
    if self._input_indexes_to_retain is not None:
        for index in self._input_indexes_to_retain:
            inputs[index]._data = in_data[index]
    if self._output_indexes_to_retain is not None:
        retained = self._output_indexes_to_retain, self._retained_output_data
        for index, array in zip(*retained, strict=True):
            nodes[index]._data = array
    self.lazy_grad_sum = lazy_grad_sum


_FINE_WITHOUT_LAYOUTS = (
    FunctionNode.check_layout_forward,
    Convolution2DFunction.check_layout_forward,
    BatchNormalization.check_layout_forward,
)

# What the check of types looks at, besides types and shapes.
_CHECKED = {
    BatchNormalization: ("axis",),
    Convolution2DFunction: ("groups",),
    LinearFunction: (),
    MaxPoolingND: ("ndim",),
    Mean: ("axis",),
    ReLU: (),
    SoftmaxCrossEntropy: (),
}
_MANY = 1 << 12
_passed: set[tuple] = set()


def _check_types(func, arrays) -> None:
    """Checks types as Chainer does, but only once where it would check the same."""
    names = _CHECKED.get(type(func))
    if names is None:
        func._check_data_type_forward(arrays)
        return
    form = [type(func).check_type_forward]
    for name in names:
        value = getattr(func, name)
        form.append(tuple(value) if type(value) is list else value)
    for a in arrays:
        form += a.shape, a.dtype
    key = tuple(form)
    if key not in _passed:
        func._check_data_type_forward(arrays)
        if len(_passed) == _MANY:
            _passed.clear()
        _passed.add(key)


def device_of(*arrays):
    """For ``get_device_from_array``."""
    for array in arrays:
        if array is not None and type(array) is not np.ndarray:
            return declined("it is no NumPy array")
    return _CPU


def check_grad_type(func, x, is_node_x, gx):
    """For ``_check_grad_type``, if the gradient fits."""
    if (
        type(gx) is np.ndarray
        and type(x) is VariableNode
        and gx.shape == x.shape
        and gx.dtype == x.dtype
        and x._layout is None
        and (x._data is None or type(x._data) is np.ndarray)
    ):
        return None
    return declined("it is for NumPy arrays of the shape and dtype of a graph's node")


def _plain(self, outputs) -> bool:
    """Tells whether outputs are as those of nearly all functions."""
    if type(outputs) is not tuple:
        return False
    if self._output_layouts not in (None, (None,) * len(outputs)):
        return False
    for y in outputs:
        if type(y) is not np.ndarray:
            return False
    return not self.is_elementwise or len(outputs) == 1


def _finish_as_chainer(self, inputs, outputs):
    """Lets Chainer check and wrap outputs that have been computed already."""
    retained = self._input_indexes_to_retain, self._output_indexes_to_retain
    layouts = self._output_layouts

    def forward(in_data):
        self._input_indexes_to_retain, self._output_indexes_to_retain = retained
        self._output_layouts = layouts
        return outputs

    own = vars(self).get("forward")
    self.forward = forward
    try:
        with chainer.using_config("type_check", False):
            return registry.original(_APPLY)(self, inputs)
    finally:
        del self.forward
        if own is not None:
            self.forward = own


_CPU = chainer.backend.CpuDevice()
_APPLY = "chainer.function_node:FunctionNode.apply"
