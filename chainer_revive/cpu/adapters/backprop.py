"""Chainer's way back through a graph, without what NumPy arrays do not need."""

from __future__ import annotations

import heapq

import chainer
import numpy as np
from chainer import FunctionNode, backend
from chainer._backprop_utils import GradTable, _reduce, backprop_step
from chainer.functions.connection.convolution_2d import Convolution2DFunction

from chainer_revive.cpu import gated, steps
from chainer_revive.cpu.adapters import convolution
from chainer_revive.cpu.adapters.function_node import check_grad_type
from chainer_revive.cpu.function_node import chosen, settings, variable, watched
from chainer_revive.cpu.gated import Gated
from chainer_revive.explain import declined


def backward(self, retain_grad=False, enable_double_backprop=False, loss_scale=None):
    """For ``Variable``, where it is a loss without a gradient."""
    y = None if self._has_chainerx_array else self._data[0]
    if (
        type(y) is not np.ndarray
        or y.ndim
        or enable_double_backprop
        or loss_scale is not None
        or not self._grad is self._grad_var is self._layout is None
    ):
        return declined("it is for losses of NumPy, without a gradient of their own")
    self._grad_valid = True
    start = self._node, variable(steps.filled((), y.dtype, 1))
    with chainer.using_config("enable_backprop", False):
        chainer._backprop._backprop_to_all([start], retain_grad, None)
    return None


def to_all(outputs, retain_grad, loss_scale):
    """For ``_backprop_to_all``."""
    if watched(*settings()):
        return declined("a hook, debug mode or a schedule needs Chainer's own")
    grads = _Gradients(accumulate_grad_inputs=True)
    leaves, waiting, seen = set(), [], set()
    reached = []
    for node, gy in outputs:
        grads.accumulate(node, gy)
        reached.append(node)
    while True:
        for node in reached:
            func = node._creator_node
            if func is None:
                leaves.add(node)
            elif func not in seen:
                heapq.heappush(waiting, (-func.rank, len(seen), func))
                seen.add(func)
        if not waiting:
            break
        _, _, func = heapq.heappop(waiting)
        reached = _step(func, grads, retain_grad)
    for node in leaves:
        gx = grads.pop(node)
        variable = node._variable()
        if variable is not None:
            variable._set_grad_var_without_check(gx)
            variable._loss_scale = loss_scale
    grads.assert_no_grads()


class _Gradients(GradTable):
    """Chainer's table, with a short way for what is found most often."""

    def get_as_list(self, node):
        gradients = self.grads.get(node)
        if gradients is None:
            if node._creator_node is None and _has_gradient(node):
                return super().get_as_list(node)
            gradients = self.grads[node] = []
        return gradients

    def pop(self, node):
        gradients = self.grads.get(node)
        if gradients is None or len(gradients) != 1:
            return super().pop(node)
        del self.grads[node]
        return gradients[0]


def _has_gradient(node) -> bool:
    """Tells whether a leaf has a gradient that the new one is added to."""
    variable = node._variable()
    return node._old_style_grad_generator is not None or not (
        variable is None or variable._grad is variable._grad_var is None
    )


def _step(func, grads, retain_grad) -> list:
    """Goes back through a function; returns the nodes that it brought a gradient."""
    plain = not func._local_function_hooks
    ys, gys = [], []
    for y in func.outputs:
        y = y()
        gy = None if y is None or y._creator_node is None else grads.pop(y)
        ys.append(y)
        gys.append(gy)
        plain = plain and (gy is None or _is_numpy(gy))
    indexes = []
    for i, x in enumerate(func.inputs):
        if x._requires_grad:
            indexes.append(i)
        plain = plain and (x._data is None or type(x._data) is np.ndarray)
    if not indexes:
        return []
    if plain:
        gxs = _backprop_plainly(func, tuple(indexes), tuple(gys), grads, retain_grad)
    else:
        gxs = _backprop_within(func, tuple(indexes), tuple(gys), grads)
    if retain_grad:
        for y, gy in zip(ys, gys, strict=True):
            if y is not None:
                y._set_grad_var_if_available(gy)
    reached = []
    for x, gx in gxs.items():
        for g in gx:
            if g is None or type(g._data) is Gated:
                continue
            if check_grad_type(func, x, True, g._data[0]) is None:
                continue
            chainer.variable._check_grad_type(func, x, True, g.raw_array)
        if gx:
            reached.append(x)
    return reached


def _is_numpy(gy) -> bool:
    return type(gy._data) is Gated or type(gy._data[0]) is np.ndarray


def _backprop_plainly(func, indexes, gys, grads, retain_grad) -> dict:
    """As Chainer's ``backprop_step``, which has more for what is unusual."""
    inputs = func.inputs
    gxs = {inputs[i]: grads.get_as_list(inputs[i]) for i in indexes}
    if func.backward_accumulate.__code__ is not _ACCUMULATE or func.stack is not None:
        backprop_step(func, indexes, gys, gxs, False)
        return gxs
    found = None
    if type(func) is Convolution2DFunction:
        found = convolution.add(func, indexes, gys, gxs)
    elif not retain_grad:
        found = gated.backward(func, indexes, gys)
    if found is None:
        found = chosen(func, indexes, func.backward(indexes, gys))
    record = steps.recorder()
    for i, gx in zip(indexes, found, strict=True):
        if gx is None:
            continue
        if type(gx._data) is not Gated:
            if gx.raw_array is None:
                continue
            if record is not None:
                record.gradient(func, gx.raw_array)
        gxs[inputs[i]].append(gx)
    del found, gx
    if not func.lazy_grad_sum:
        for gx in gxs.values():
            if len(gx) > 1:
                _reduce(gx)
    return gxs


_ACCUMULATE = FunctionNode.backward_accumulate.__code__


def _backprop_within(func, indexes, gys, grads) -> dict:
    """Goes back between the function's own hooks, and on its device."""
    hooks = func._local_function_hooks or {}
    in_data = tuple([x.data for x in func.inputs])
    gy_data = tuple([None if gy is None else gy.raw_array for gy in gys])
    with chainer.using_device(backend.get_device_from_array(*in_data, *gy_data)):
        for hook in hooks.values():
            hook.backward_preprocess(func, in_data, gy_data)
        inputs = func.inputs
        gxs = {inputs[i]: grads.get_as_list(inputs[i]) for i in indexes}
        backprop_step(func, indexes, gys, gxs, False)
        for hook in hooks.values():
            hook.backward_postprocess(func, in_data, gy_data)
    return gxs
