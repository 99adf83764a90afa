"""Gradients as plain arrays, where nobody differentiates or watches them."""

from __future__ import annotations

import weakref

import chainer
import numpy as np
from chainer import Variable
from chainer.variable import VariableNode

from chainer_revive.registry import is_own

WATCHED = "gradients of gradients, a hook, debug mode or a schedule need Chainer's own"


def unwatched() -> bool:
    """Tells whether a gradient needs no :class:`~chainer.FunctionNode`.

    It needs none without double backprop, hooks, debug mode and static graphs.
    """
    own, common = settings()
    return not (
        own.get("enable_backprop", common.enable_backprop) or watched(own, common)
    )


def settings() -> tuple[dict, chainer.configuration.GlobalConfig]:
    """Returns the settings of this thread and of all; ``chainer.config`` is slow."""
    return chainer.config._local.__dict__, chainer.global_config


def watched(own, common) -> bool:
    """Tells whether hooks, debug mode or a static graph need Chainer's own code."""
    return (
        own.get("debug", common.debug)
        or own.get("schedule_func", common.schedule_func) is not None
        or bool(chainer.get_function_hooks())
    )


def winograd_wanted() -> int:
    """Returns ``config.winograd``: which tiles Winograd's convolutions may have.

    Raises:
        ValueError: If it is not ``False``, ``True``, 2 or 4.
    """
    own, common = settings()
    wanted = own.get("winograd", getattr(common, "winograd", True))
    if wanted not in (False, True, 2, 4):
        raise ValueError(
            f"chainer.config.winograd is {wanted!r}; it may be False, True, 2 or 4"
        )
    return wanted


def variable(array: np.ndarray, requires_grad: bool = True) -> Variable:
    """Returns ``Variable(array, requires_grad=requires_grad)``, without its calls."""
    x = Variable.__new__(Variable)
    x._requires_grad = requires_grad
    x._loss_scale = x._grad_var = x._device = x._layout = x._grad = None
    x._grad_valid = True
    x._data = [array]
    x._node = node = VariableNode.__new__(VariableNode)
    node._variable = weakref.ref(x)
    node.name = node._layout = None
    node._requires_grad = requires_grad
    node.dtype = array.dtype
    node.shape = array.shape
    return x


def has_own_backward(func) -> bool:
    """Tells whether a function goes back as Chainer's or this package's code does."""
    return is_own(type(func).backward) and "backward" not in vars(func)


def gradients(arrays):
    """Returns what a backward method returns; ``NotImplemented`` stays."""
    if arrays is NotImplemented:
        return NotImplemented
    return tuple([variable(array) for array in arrays])


def chosen(func, indexes, gxs):
    """Returns those that are wanted of the gradients that a backward method returned.

    Raises:
        ValueError: If their number is wrong, with Chainer's message.
    """
    expected = len(func.inputs), len(indexes)
    if len(gxs) == expected[0]:
        return tuple([gxs[i] for i in indexes])
    if len(gxs) != expected[1]:
        wanted = " or ".join(map(str, dict.fromkeys(expected)))
        message = "number of gradients returned from backward is incorrect: "
        message += f"{len(gxs)} != expected {wanted}"
        raise ValueError(func._get_error_message(message))
    return gxs
