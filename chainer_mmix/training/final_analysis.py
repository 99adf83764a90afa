from __future__ import annotations

from collections.abc import Callable, Sequence

import chainer
import numpy as np
from chainer.iterators import SerialIterator

from chainer_mmix.datasets import without_augmentation
from chainer_mmix.training.extensions import (
    CalibrationEvaluator,
    DeformationEvaluator,
    Evaluator,
    FgsmEvaluator,
    MixupPreview,
)
from chainer_mmix.training.precision import convert_examples


def analyse(
    trainer: chainer.training.Trainer,
    train: Sequence,
    test: Sequence,
    *,
    epoch: int,
    batchsize: int,
    device: chainer.backend.Device,
    class_names: Sequence[str] = (),
) -> None:
    """Has a Trainer analyse the trained network, for the report.

    It measures calibration and robustness, and draws mixed images, as they are without
    augmentation. The training is the same, to the bit.

    Args:
        trainer (~chainer.training.Trainer): The Trainer of a
            :class:`~chainer_mmix.ManifoldMixupClassifier` of images.
        train (sequence): Training examples ``(image, label)``.
        test (sequence): Validation examples, images in [0, 1].
        epoch (int): The last epoch, at the end of which to do it.
        batchsize (int): Examples a minibatch.
        device (chainer.backend.Device): Where to compute.
        class_names (sequence of str): For the mixed images. By default they have
            numbers.
    """
    target = trainer.updater.get_optimizer("main").target
    data = SerialIterator(test, batchsize, repeat=False, shuffle=False)
    train = without_augmentation(train)  # which draws random numbers
    # The classes of a folder lie one after the other.
    spread = np.linspace(0, len(train) - 1, min(6, len(train))).astype(int)
    shown = [train[int(i)] for i in spread]
    for extension in (
        CalibrationEvaluator(data, target, device=device),
        FgsmEvaluator(data, target, device=device, clip=(0, 1)),
        DeformationEvaluator(data, target, device=device),
        MixupPreview(shown, label_names=class_names or None),
    ):
        trainer.extend(extension, trigger=_at_end(epoch))


def evaluate_at_end(
    trainer: chainer.training.Trainer,
    test: Sequence,
    *,
    epoch: int,
    batchsize: int,
    device: chainer.backend.Device,
) -> None:
    """Has a Trainer evaluate the trained network once on a test set of its own.

    The log has the result under ``test/main/``. The training is the same, to the bit.

    Args:
        trainer (~chainer.training.Trainer): The Trainer.
        test (sequence): Test examples ``(image, label)``.
        epoch, batchsize, device: As for :func:`analyse`.
    """
    data = SerialIterator(test, batchsize, repeat=False, shuffle=False)
    target = trainer.updater.get_optimizer("main").target
    evaluator = Evaluator(data, target, convert_examples, device)
    evaluator.name = "test"
    trainer.extend(evaluator, name="test", trigger=_at_end(epoch))


def _at_end(epoch: int) -> Callable:
    """Returns a trigger without a state, which snapshots of other runs would lack."""
    return lambda trainer: (
        trainer.updater.is_new_epoch and trainer.updater.epoch >= epoch
    )
