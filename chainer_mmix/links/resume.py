"""Where a policy's generator is saved: in snapshots of training, not with weights."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Iterator

import chainer
from chainer.training import Trainer
from chainer.training.updaters import StandardUpdater

from chainer_mmix.mixing.policy import MixupPolicy

_of_training = contextvars.ContextVar("of_training", default=False)


def is_of_training() -> bool:
    """Whether the running serialization is that of a Trainer or of its updater.

    Only the caller can tell: ``load_npz(snapshot, model, path="updater/model:main/")``
    reads weights, from the same place of the same file.
    """
    return _of_training.get()


def _mark(serialize: Callable) -> Callable:
    @functools.wraps(serialize)
    def marked(self, serializer: chainer.AbstractSerializer) -> None:
        token = _of_training.set(True)
        try:
            serialize(self, serializer)
        finally:
            _of_training.reset(token)

    return marked


def _with_held_policies(serialize: Callable) -> Callable:
    @functools.wraps(serialize)
    def with_held_policies(self, serializer: chainer.AbstractSerializer) -> None:
        serialize(self, serializer)
        for path, policy in _held_policies(self):
            inner = serializer
            for key in path:
                inner = inner[key]
            policy.serialize(inner["policy"])

    return with_held_policies


def _held_policies(updater: StandardUpdater) -> Iterator[tuple[list[str], MixupPolicy]]:
    """Yields the policies of links that no optimizer's target leads to.

    ``loss_func`` is such a link if the optimizer has the predictor for its target.
    """
    seen: set[chainer.Link] = set()
    for optimizer in updater.get_all_optimizers().values():
        seen.update(optimizer.target.links())
    for key, value in sorted(vars(updater).items()):
        if not isinstance(value, chainer.Link):
            continue
        for name, link in value.namedlinks():
            policy = getattr(link, "policy", None)
            if link not in seen and isinstance(policy, MixupPolicy):
                yield [key, *filter(None, name.split("/"))], policy
            seen.add(link)


StandardUpdater.serialize = _mark(_with_held_policies(StandardUpdater.serialize))
# For updaters with a serialize of their own.
Trainer.serialize = _mark(Trainer.serialize)
