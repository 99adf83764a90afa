"""Checks of what an updater and an evaluator are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import chainer


def check_set_up(optimizer: Any) -> None:
    """Checks that an argument is an optimizer with a model.

    Raises:
        TypeError: If it is no optimizer.
        ValueError: If it has no model.
    """
    remedy = "optimizer.setup(model), or training.make_optimizer(name, model, lr)"
    if isinstance(optimizer, type) or not hasattr(optimizer, "target"):
        raise TypeError(
            f"optimizer must be one that is set up, not {kind_of(optimizer)}: {remedy}"
        )
    if optimizer.target is None:
        raise ValueError(f"optimizer, {kind_of(optimizer)}, is not set up: {remedy}")


def check_iterators(iterators: Any, what: str, options: str = "") -> None:
    """Checks that an argument is an iterator, or a dict with one that is called main.

    Args:
        iterators: What was given.
        what (str): The class that takes it, for the error.
        options (str): Those that the error adds to a call of SerialIterator.

    Raises:
        TypeError: If it is something else, such as a dataset.
        ValueError: If none is called main.
    """
    remedy = f"chainer.iterators.SerialIterator(dataset, batchsize{options})"
    if not isinstance(iterators, Mapping):
        if not isinstance(iterators, chainer.dataset.Iterator):
            given = kind_of(iterators)
            raise TypeError(f"{what} takes an iterator, not {given}: {remedy}")
        return
    for name, one in iterators.items():
        if not (hasattr(one, "next") or hasattr(one, "__next__")):
            raise TypeError(
                f"{what} takes iterators, but {name!r} is {kind_of(one)}: {remedy}"
            )
    if "main" not in iterators:
        raise ValueError(
            f"{what} takes batches of an iterator that is called main, but there are "
            f"only {[*iterators]}: call one so"
        )


def check_targets(targets: Any, what: str, needs_main: bool) -> None:
    """Checks that an argument is a link to evaluate, or a dict of links.

    Args:
        targets: What was given.
        what (str): The class that takes it, for the error.
        needs_main (bool): Whether the link that is called main is called.

    Raises:
        TypeError: If it is something else, such as a function.
        ValueError: If none is called main.
    """
    for one in targets.values() if isinstance(targets, Mapping) else [targets]:
        if not isinstance(one, chainer.Link):
            raise TypeError(
                f"{what} evaluates a link, not {kind_of(one)}: give a classifier, such "
                "as chainer.links.Classifier(predictor), and a function as eval_func"
            )
    if needs_main and isinstance(targets, Mapping) and "main" not in targets:
        raise ValueError(
            f"{what} calls the link that is called main, but there are only "
            f"{[*targets]}: call one so, or give an eval_func"
        )


def kind_of(value: Any) -> str:
    """Says for an error what was given."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else type(value).__name__
