"""The step of a multi-node optimizer, in one pass with the exchange of gradients."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import chainer
import numpy as np
from chainer.optimizer import GradientMethod

from chainer_revive import registry
from chainer_revive.cpu import compiled
from chainer_revive.cpu.adapters.all_parameters import overlap, step_of

_NAIVE = "chainermn.communicators.naive_communicator"

# Of this thread: the optimizer that follows the exchange, until its step is taken.
_following = threading.local()

# Arrays and rates of each gradient, and the loop, as exchange() of
# chainer_revive.cpu.numba takes them.
Work = tuple[list[list[np.ndarray]], list[tuple[float, ...]], str]


def update(optimizer: Any, args: tuple, kwds: dict) -> None:
    """Exchanges gradients and updates, for ChainerMN's multi-node optimizer.

    Args:
        optimizer: The multi-node optimizer.
        args, kwds: Of its ``update``.
    """
    actual, communicator = optimizer.actual_optimizer, optimizer.communicator
    is_alone = _nothing_is_between(communicator, actual)
    _following.optimizer = actual if is_alone else None
    try:
        communicator.multi_node_mean_grad(optimizer.target, optimizer.zero_fill)
        is_taken = is_alone and _following.optimizer is None
    finally:
        _following.optimizer = None
    if is_taken:
        actual.t += 1
    else:
        actual.update(None, *args, **kwds)


def with_step(model: chainer.Link, grads: Sequence[np.ndarray]) -> Work:
    """Adds to an exchange the step that follows, which then has to be taken there.

    Args:
        model: What the gradients are of.
        grads: Those exchanged, of float32.
    """
    optimizer = getattr(_following, "optimizer", None)
    if optimizer is not None and optimizer.target is model:
        work = _step(optimizer, grads)
        if work is not None:
            _following.optimizer = None
            return work
    return [[grad] for grad in grads], [()] * len(grads), ""


def _step(optimizer: GradientMethod, grads: Sequence[np.ndarray]) -> Work | None:
    # In debug mode, means are looked at before the step. An exchange has one thread:
    # with more, the step is faster by itself.
    threads = compiled.loops(np.dtype(np.float32)).threads
    if chainer.is_debug() or threads.count() > 1:
        return None
    step = step_of(optimizer)
    if step is None:
        return None
    places = {id(grad): i for i, grad in enumerate(grads)}
    tensors: list[list[np.ndarray]] = [[grad] for grad in grads]
    for param, grad, *states in step.tensors:
        place = places.get(id(grad))
        if place is None:
            return None
        tensors[place] += [param, *states]
    # The means of frozen parameters are written too.
    if len(step.tensors) < len(grads) and overlap(tensors):
        return None
    rates: list[tuple[float, ...]] = [()] * len(grads)
    for (_, grad, *_), numbers in zip(step.tensors, step.rates(), strict=True):
        rates[places[id(grad)]] = numbers
    return tensors, rates, step.loop


def _nothing_is_between(communicator: Any, optimizer: Any) -> bool:
    """Tells whether nobody looks at gradients between the exchange and the step."""
    exchange = communicator.multi_node_mean_grad
    # Such as by a watchdog. What wraps that in turn has its mark, but not for itself.
    while getattr(exchange, "only_waits", None) is exchange is not None:
        exchange = exchange.__wrapped__
    return (
        getattr(exchange, "__globals__", {}).get("__name__") == _NAIVE
        and registry.is_own(type(optimizer).update)
        and "update" not in vars(optimizer)
    )
