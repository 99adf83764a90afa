from __future__ import annotations

import warnings
from typing import Any

import chainer
from chainer.links import BatchNormalization


def synchronize_statistics(model: chainer.Link, communicator: Any) -> None:
    """Lets batch normalisation compute its statistics over all ranks in training.

    Each :class:`chainer.links.BatchNormalization` in the model is replaced by a
    :class:`chainermn.links.MultiNodeBatchNormalization`. Call this before an optimizer
    is set up with the model.

    Args:
        model (~chainer.Link): The model.
        communicator (~chainermn.CommunicatorBase): One of ChainerMN's communicators.

    Raises:
        ValueError: If the model has no batch normalisation, or one whose size is not
            known yet.
    """
    from chainermn.links import create_mnbn_model

    found = 0
    for parent in list(model.links()):
        for child in list(parent.children()):
            if not isinstance(child, BatchNormalization):
                continue
            found += 1
            if getattr(child, "avg_mean", None) is None:
                raise ValueError(
                    "batch normalisation of an unknown size cannot be synchronized: "
                    "give it its size, or call the network once before"
                )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # "is experimental"
                new = create_mnbn_model(child, communicator)
            new.name = child.name
            if isinstance(parent, chainer.ChainList):
                parent._children[parent._children.index(child)] = new
            else:
                parent.__dict__[child.name] = new
    if not found:
        raise ValueError(
            "the model has no batch normalisation whose statistics the processes "
            "could share: train it without synchronizing them"
        )
