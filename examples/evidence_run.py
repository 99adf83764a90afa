"""One training of the evidence: from its settings to its record."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import chainer
import chainer.functions as F
import numpy as np
from chainer.dataset import concat_examples
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator
from chainer.serializers import save_npz
from chainer.training import StandardUpdater, Trainer
from chainer.training.extensions import LogReport, snapshot

import chainer_revive
from chainer_mmix import ManifoldMixupClassifier
from chainer_mmix.analysis import calibration
from chainer_mmix.analysis.fgsm import fgsm_accuracy
from chainer_mmix.analysis.predictions import predict_all
from chainer_mmix.datasets import add_label_noise, take_subset
from chainer_mmix.models import PreActResNet
from chainer_mmix.runs.files import write_json
from chainer_mmix.runs.record import device_name, versions
from chainer_mmix.training import (
    RunLock,
    find_good_snapshot,
    load_snapshot,
    make_optimizer,
    set_seed,
)
from chainer_mmix.training.extensions import (
    Evaluator,
    FailOnNonNumber,
    LearningRate,
    RandomState,
)

EPS = (0.01, 0.03, 0.1)
# Images of which FGSM, the accuracy in training and the curves are measured: the first.
N_MEASURED = 2000


class PreActResNet10(PreActResNet):
    """Ten layers; the maps of the first stage are half as high and wide as the image.

    The mixing points are those of :class:`~chainer_mmix.models.PreActResNet`.
    """

    n_units = (1, 1, 1, 1)
    bottleneck = False

    def stage1(self, x) -> chainer.Variable:
        return self.block1(F.max_pooling_2d(self.conv1(x), 2))


def train(
    settings: Mapping[str, Any],
    pool: Sequence,
    held_out: Sequence,
    record: Path,
    work: Path,
    tell: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Trains a network and writes its record; goes on where the last try ended.

    Args:
        settings (mapping): Of the run, as in ``evidence.py``. They are in the record.
        pool (sequence): Examples from which the training set is drawn by the seed.
        held_out (sequence): What to evaluate on.
        record (pathlib.Path): The file to write.
        work (pathlib.Path): The folder of the snapshots, removed at the end.
        tell (callable): Called with the epoch at each evaluation.

    Raises:
        LockedError: If another process is at this run.
    """
    work.mkdir(parents=True, exist_ok=True)
    lock = RunLock(work)
    try:
        trainer, classifier, examples = _prepare(settings, pool, held_out, work)
        trainer.extend(
            lambda trainer: tell(trainer.updater.epoch),
            name="tell",
            trigger=(settings["every"], "epoch"),
        )
        newest, _ = find_good_snapshot(work)
        if newest is not None:
            load_snapshot(newest, trainer)
        trainer.run()
        content = {
            "settings": dict(settings),
            "result": measure(classifier, examples, held_out),
            "log": [
                {key: value for key, value in entry.items() if key != "iteration"}
                for entry in trainer.get_extension("LogReport").log
            ],
            "seconds": trainer.elapsed_time,
            "versions": versions(),
            "revive": chainer_revive.state(),
            "device_name": device_name(chainer.get_device("@numpy")),
        }
        record.parent.mkdir(parents=True, exist_ok=True)
        write_json(record, content)
    finally:
        lock.release()
    shutil.rmtree(work, ignore_errors=True)


def _prepare(
    settings: Mapping[str, Any], pool: Sequence, held_out: Sequence, work: Path
) -> tuple[Trainer, ManifoldMixupClassifier, Sequence]:
    seed, every = settings["seed"], (settings["every"], "epoch")
    set_seed(seed, chainer.get_device("@numpy"))
    examples = pool
    if settings["n_train"] < len(pool):
        examples = take_subset(pool, settings["n_train"], seed)
    if settings["label_noise"]:
        examples = add_label_noise(examples, settings["label_noise"], 10, seed)
    examples = TupleDataset(*concat_examples(examples[:]))
    classifier = ManifoldMixupClassifier(
        PreActResNet10(10, width=settings["width"]), seed=seed, **settings["mixing"]
    )
    with chainer.using_config("train", False):
        classifier.predictor(examples[0][0][None])  # gives all parameters their shapes
    optimizer = make_optimizer(
        "sgd", classifier, settings["lr"], settings["weight_decay"]
    )
    batches = SerialIterator(examples, settings["batchsize"])
    trainer = Trainer(
        StandardUpdater(batches, optimizer), (settings["epoch"], "epoch"), str(work)
    )
    evaluated = SerialIterator(held_out[:N_MEASURED], 500, repeat=False, shuffle=False)
    trainer.extend(Evaluator(evaluated, classifier), trigger=every)
    trainer.extend(LearningRate([settings["epoch"] * k // 4 for k in (2, 3)]))
    trainer.extend(FailOnNonNumber())
    trainer.extend(RandomState())
    trainer.extend(LogReport(trigger=every))
    save = functools.partial(save_npz, compression=False)
    trainer.extend(snapshot(save, n_retains=1), trigger=every)
    return trainer, classifier, examples


def measure(
    classifier: ManifoldMixupClassifier, examples: Sequence, held_out: Sequence
) -> dict[str, Any]:
    """Measures a trained network.

    Args:
        classifier (~chainer_mmix.ManifoldMixupClassifier): The network.
        examples (sequence): The training set.
        held_out (sequence): What to evaluate on.

    Returns:
        dict: ``accuracy``, ``nll``, ``ece`` (15 bins), ``brier``, ``fgsm_accuracy/...``
        and ``reliability`` of the held-out set; ``train_accuracy`` without mixing, on
        the labels that were trained on.
    """
    scores, t = predict_all(classifier, _batches(held_out))
    seen, labels = predict_all(classifier, _batches(examples[:N_MEASURED]))
    attacked = _batches(held_out[:N_MEASURED])
    return {
        "accuracy": float((scores.argmax(axis=1) == t).mean()),
        **calibration.measure(scores, t),
        "train_accuracy": float((seen.argmax(axis=1) == labels).mean()),
        **fgsm_accuracy(classifier, attacked, EPS, (0, 1)),
        "reliability": {
            key: np.asarray(part).tolist()
            for key, part in calibration.reliability(scores, t)._asdict().items()
        },
    }


def _batches(examples: Sequence):
    return map(
        concat_examples, SerialIterator(examples, 500, repeat=False, shuffle=False)
    )
