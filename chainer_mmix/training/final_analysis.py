from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import chainer
import numpy as np
from chainer.iterators import SerialIterator

from chainer_mmix.analysis.fgsm import exceed
from chainer_mmix.datasets import as_bytes, without_augmentation
from chainer_mmix.links.probe import drawing_nothing
from chainer_mmix.runs.log import write_log
from chainer_mmix.training.extensions import (
    CalibrationEvaluator,
    DeformationEvaluator,
    Evaluator,
    FgsmEvaluator,
    MixupPreview,
)
from chainer_mmix.training.lock import RunLock
from chainer_mmix.training.multinode.ranks import Ranks
from chainer_mmix.training.precision import convert_examples

_NAMES = [
    extension.__name__
    for extension in (
        CalibrationEvaluator,
        FgsmEvaluator,
        DeformationEvaluator,
        MixupPreview,
    )
]


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
    """Lets a Trainer analyse the trained network, for the report.

    It measures calibration and robustness, and draws mixed images, without
    augmentation. The training stays the same, bit-for-bit.

    Args:
        trainer (~chainer.training.Trainer): The Trainer of a
            :class:`~chainer_mmix.ManifoldMixupClassifier` of images.
        train (sequence): Training examples ``(image, label)``.
        test (sequence): Validation examples. If all their images are in [0, 1], an
            attack may not leave it.
        epoch (int): The last epoch, after which the network is analysed.
        batchsize (int): Examples per minibatch.
        device (chainer.backend.Device): Where to compute.
        class_names (sequence of str): The class names for the mixed images. By default,
            classes are shown as numbers.
    """
    target = trainer.updater.get_optimizer("main").target
    data = SerialIterator(test, batchsize, repeat=False, shuffle=False)
    train = without_augmentation(train)
    # Examples may be sorted by class.
    first = np.random.RandomState(0).permutation(len(train))[:6]
    with drawing_nothing(device):  # of transforms that are not known
        shown = [train[int(i)] for i in first]
        clip = (0, 1) if _are_in_unit_range(test) else None
    for extension in (
        CalibrationEvaluator(data, target, convert_examples, device),
        FgsmEvaluator(data, target, convert_examples, device, clip=clip),
        DeformationEvaluator(data, target, convert_examples, device),
        MixupPreview(shown, label_names=class_names or None),
    ):
        trainer.extend(extension, trigger=_at_end(epoch))


def _are_in_unit_range(examples: Sequence) -> bool:
    if as_bytes(examples) is not examples:  # from files, which are not read for this
        return True
    images = (examples[i][0] for i in range(len(examples)))
    return not any(exceed(x, (0, 1)) for x in images)


def evaluate_at_end(
    trainer: chainer.training.Trainer,
    test: Sequence,
    *,
    epoch: int,
    batchsize: int,
    device: chainer.backend.Device,
    ranks: Ranks | None = None,
) -> None:
    """Lets a Trainer evaluate the trained network once, on a separate test set.

    The log has the result under ``test/main/``. The training stays the same,
    bit-for-bit.

    Args:
        trainer (~chainer.training.Trainer): The Trainer.
        test (sequence): Test examples ``(image, label)``.
        epoch, batchsize, device: As for :func:`analyse`.
        ranks (Ranks): The ranks, each of which evaluates its share. The default is this
            process alone.
    """
    ranks = ranks or Ranks()
    test = ranks.share_of(test)
    data = SerialIterator(test, batchsize, repeat=False, shuffle=False)
    target = trainer.updater.get_optimizer("main").target
    evaluator = ranks.evaluator(Evaluator(data, target, convert_examples, device))
    evaluator.name = "test"
    trainer.extend(evaluator, name="test", trigger=_at_end(epoch))


def _at_end(epoch: int) -> Callable:
    """Returns a trigger without a state, which snapshots of other runs would lack."""
    return lambda trainer: (
        trainer.updater.is_new_epoch and trainer.updater.epoch >= epoch
    )


def is_analysed(trainer: chainer.training.Trainer) -> bool:
    """Tells whether the log of a finished run contains its analysis."""
    return "validation/main/ece" in trainer.get_extension("LogReport").log[-1]


def analyse_finished(trainer: chainer.training.Trainer) -> bool:
    """Analyses the network of a finished run now, and saves the results.

    Args:
        trainer (~chainer.training.Trainer): A Trainer that :func:`analyse` was given,
            with the last snapshot loaded.

    Returns:
        bool: Whether it had not been analysed yet.
    """
    log = trainer.get_extension("LogReport").log
    found: dict = {}
    if is_analysed(trainer):
        return False
    lock = RunLock(trainer.out)
    try:
        trainer._start_at = time.time()  # which its snapshot asks for
        with trainer.reporter.scope(found):
            for name in _NAMES:
                trainer.get_extension(name)(trainer)
        log[-1].update({key: float(value) for key, value in found.items()})
        trainer.get_extension("_Snapshot")(trainer)
        write_log(trainer.out, log)
    finally:
        lock.release()
    return True
