"""Chainer's way back through a graph, without what NumPy arrays do not need."""

from __future__ import annotations

import heapq

import chainer
import numpy as np
from chainer import backend
from chainer._backprop_utils import GradTable, backprop_step

from chainer_revive.cpu.function_node import settings, watched
from chainer_revive.explain import declined


def to_all(outputs, retain_grad, loss_scale):
    """For ``_backprop_to_all``."""
    if watched(*settings()):
        return declined("a hook, debug mode or a schedule needs Chainer's own")
    grads = _Gradients(accumulate_grad_inputs=True)
    leaves, waiting, seen = set(), [], set()

    def reach(node):
        func = node._creator_node
        if func is None:
            leaves.add(node)
        elif func not in seen:
            heapq.heappush(waiting, (-func.rank, len(seen), func))
            seen.add(func)

    for node, gy in outputs:
        grads.accumulate(node, gy)
        reach(node)
    while waiting:
        _, _, func = heapq.heappop(waiting)
        for node in _step(func, grads, retain_grad):
            reach(node)
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
    inputs = func.inputs
    indexes = tuple([i for i, x in enumerate(inputs) if x._requires_grad])
    ys = [y() for y in func.outputs]
    gys = tuple(
        [None if y is None or y._creator_node is None else grads.pop(y) for y in ys]
    )
    if not indexes:
        return []
    gxs = {inputs[i]: grads.get_as_list(inputs[i]) for i in indexes}
    arrays = [x._data for x in inputs]
    arrays += [None if gy is None else gy._data[0] for gy in gys]
    if func._local_function_hooks or any(
        [a is not None and type(a) is not np.ndarray for a in arrays]
    ):
        _backprop_within(func, indexes, gys, gxs)
    else:
        backprop_step(func, indexes, gys, gxs, False)
    if retain_grad:
        for y, gy in zip(ys, gys, strict=True):
            if y is not None:
                y._set_grad_var_if_available(gy)
    reached = []
    for x, gx in gxs.items():
        for g in gx:
            if g is not None:
                chainer.variable._check_grad_type(func, x, True, g.raw_array)
        if gx:
            reached.append(x)
    return reached


def _backprop_within(func, indexes, gys, gxs) -> None:
    """Goes back between the function's own hooks, and on its device."""
    hooks = func._local_function_hooks or {}
    in_data = tuple([x.data for x in func.inputs])
    gy_data = tuple([None if gy is None else gy.raw_array for gy in gys])
    with chainer.using_device(backend.get_device_from_array(*in_data, *gy_data)):
        for hook in hooks.values():
            hook.backward_preprocess(func, in_data, gy_data)
        backprop_step(func, indexes, gys, gxs, False)
        for hook in hooks.values():
            hook.backward_postprocess(func, in_data, gy_data)
