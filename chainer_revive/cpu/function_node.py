"""Gradients as plain arrays, where nobody differentiates or watches them."""

from __future__ import annotations

import chainer
import numpy as np
from chainer import Variable

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
        ValueError: It is not ``False``, ``True``, 2 or 4.
    """
    own, common = settings()
    wanted = own.get("winograd", getattr(common, "winograd", True))
    if wanted not in (False, True, 2, 4):
        raise ValueError(
            f"chainer.config.winograd is {wanted!r}; it may be False, True, 2 or 4"
        )
    return wanted


def gradient(array: np.ndarray) -> Variable:
    return Variable._init_unchecked(array, is_chainerx_array=False)


def gradients(arrays):
    """Returns what a backward method returns; ``NotImplemented`` stays."""
    if arrays is NotImplemented:
        return NotImplemented
    return tuple([gradient(array) for array in arrays])
