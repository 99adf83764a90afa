"""Changes to Chainer's updaters, Trainers and optimizers for classifiers that mix.

A snapshot of training holds the generators of policies, which files of weights do not.
A predictor that several classifiers share is updated once a step.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Iterator

import chainer
from chainer.training import Trainer
from chainer.training.updaters import StandardUpdater

from chainer_mmix.links.links_in import links_in
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
        for i, policy in enumerate(_held_policies(self.updater)):
            policy.serialize(serializer["updater"][f"policy:{i}"])

    return with_held_policies


def _held_policies(updater: chainer.training.Updater) -> Iterator[MixupPolicy]:
    """Yields the policies of links that no optimizer's target leads to.

    ``loss_func`` is such a link if the optimizer has the predictor for its target.
    """
    targets = [o.target for o in updater.get_all_optimizers().values()]
    seen = {id(_policy_of(link)) for target in targets for link in target.links()}
    for root in links_in(vars(updater)):
        for link in root.links():
            policy = _policy_of(link)
            if policy and id(policy) not in seen:
                seen.add(id(policy))
                yield policy


def _policy_of(link: chainer.Link) -> MixupPolicy | None:
    policy = getattr(link, "policy", None)
    return policy if isinstance(policy, MixupPolicy) else None


def _noting_shared_parameters(setup: Callable) -> Callable:
    @functools.wraps(setup)
    def noting(self, link: chainer.Link):
        ids = [id(param) for param in link.params()]
        if len(ids) > len(set(ids)) and any(map(_policy_of, link.links())):
            link._has_shared_parameters = True
        return setup(self, link)

    return noting


def _each_once(params: Callable) -> Callable:
    @functools.wraps(params)
    def each_once(self, include_uninit: bool = True):
        found = params(self, include_uninit)
        if "_has_shared_parameters" in vars(self):
            return iter({id(param): param for param in found}.values())
        return found

    return each_once


Trainer.serialize = _mark(_with_held_policies(Trainer.serialize))
StandardUpdater.serialize = _mark(StandardUpdater.serialize)
chainer.Optimizer.setup = _noting_shared_parameters(chainer.Optimizer.setup)
# Chainer names, and updates, a parameter as often as it finds it.
chainer.Chain.params = _each_once(chainer.Chain.params)
chainer.ChainList.params = _each_once(chainer.ChainList.params)
