"""What of a Trainer an extension is about."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterator

import chainer
from chainer.training.updaters import StandardUpdater

from chainer_mmix.links import ManifoldMixupClassifier


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
    optimizers = trainer.updater.get_all_optimizers()
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


def links_in(value, seen: set[int] | None = None) -> Iterator[chainer.Link]:
    """Yields the links in containers, partial functions, methods and closures."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, chainer.Link):
        yield value
        return
    if isinstance(value, dict):
        value = tuple(value.values())
    elif isinstance(value, functools.partial):
        value = value.func, value.args, value.keywords
    elif callable(value):
        cells = getattr(value, "__closure__", None) or ()
        value = getattr(value, "__self__", None), *cells
    elif isinstance(value, types.CellType):
        with contextlib.suppress(ValueError):  # an empty one
            yield from links_in(value.cell_contents, seen)
    # A long list is data.
    if isinstance(value, (list, tuple, set)) and len(value) <= 100:
        for item in value:
            yield from links_in(item, seen)
