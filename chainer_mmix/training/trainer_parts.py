"""Finds the classifiers, optimizers and minibatches of a Trainer."""

from __future__ import annotations

import chainer
from chainer.training.updaters import StandardUpdater

from chainer_mmix.links import ManifoldMixupClassifier
from chainer_mmix.links.links_in import links_in


def classifiers_of(trainer: chainer.training.Trainer) -> list[ManifoldMixupClassifier]:
    """Finds the classifiers that a Trainer's updater trains, replicas included.

    They are among the targets of its optimizers and their children, its ``loss_func``,
    and what else its attributes hold: links, containers of them, and functions that
    call them.
    """
    updater = trainer.updater
    optimizers = updater.get_all_optimizers().values()
    found: dict[int, ManifoldMixupClassifier] = {}
    for link in links_in([*(o.target for o in optimizers), vars(updater)]):
        for child in link.links():
            if isinstance(child, ManifoldMixupClassifier):
                found[id(child)] = child
    return list(found.values())


def classifier_of(
    trainer: chainer.training.Trainer, what: str
) -> ManifoldMixupClassifier | None:
    """Finds the classifier of a Trainer, or ``None`` if there is none.

    Args:
        trainer (~chainer.training.Trainer): A Trainer.
        what (str): Who asks, for the error.

    Raises:
        ValueError: If there are several, none of which is the main optimizer's target.
    """
    found = classifiers_of(trainer)
    main = trainer.updater.get_all_optimizers().get("main")
    if main is not None and isinstance(main.target, ManifoldMixupClassifier):
        return main.target
    if len(found) > 1:
        raise ValueError(
            f"{what} finds {len(found)} classifiers in the updater: name one, as "
            f"{what}(..., classifier=model)"
        )
    return found[0] if found else None


def optimizer_of(
    trainer: chainer.training.Trainer, what: str
) -> chainer.GradientMethod:
    """Finds the main optimizer of a Trainer, or its only one.

    Raises:
        ValueError: If there are several, none of which is called ``"main"``.
    """
    optimizers = {
        # What a multi-node optimizer of chainermn wraps.
        name: getattr(optimizer, "actual_optimizer", optimizer)
        for name, optimizer in trainer.updater.get_all_optimizers().items()
    }
    if "main" in optimizers:
        return optimizers["main"]
    if len(optimizers) != 1:
        raise ValueError(
            f"{what} finds the optimizers {', '.join(map(repr, optimizers))}, none of "
            f"which is called 'main': name one, as {what}(..., optimizer=optimizer)"
        )
    return next(iter(optimizers.values()))


def batch_size(updater: StandardUpdater) -> int:
    """Returns the number of examples in the last minibatch; 1 if it is not known."""
    try:
        iterator = updater.get_iterator("main")
        share = iterator.epoch_detail - iterator.previous_epoch_detail
        return max(1, round(share * len(iterator.dataset)))
    except (AttributeError, KeyError, TypeError):
        return 1
