"""A run that goes on by ``snapshot(autoload=True)`` is one without a break."""

import json

import chainer
import chainer.links as L
import numpy as np
import pytest
from chainer.iterators import SerialIterator
from chainer.training import StandardUpdater, Trainer
from chainer.training.extensions import LogReport, snapshot

from chainer_mmix import ManifoldMixupClassifier, MixupLayers
from chainer_mmix.training import extensions

DATA = chainer.datasets.TupleDataset(
    np.random.default_rng(0).random((20, 4), np.float32),
    np.arange(20, dtype=np.int32) % 3,
)


def run(out, epochs, autoload, optimizer):
    np.random.seed(1)
    net = chainer.Sequential(L.Linear(4, 5), L.BatchNormalization(5), L.Linear(5, 3))
    model = ManifoldMixupClassifier(MixupLayers(net, ["input", 0, 1]), seed=1)
    optimizer = optimizer(0.1).setup(model)
    updater = StandardUpdater(SerialIterator(DATA, 6), optimizer)
    trainer = Trainer(updater, (epochs, "epoch"), str(out))
    data = SerialIterator(DATA, 7, repeat=False, shuffle=False)
    trainer.extend(extensions.Evaluator(data, model))
    trainer.extend(extensions.CalibrationEvaluator(data, model))
    trainer.extend(extensions.LearningRate(drops=[1, 3]))
    trainer.extend(extensions.MixupOff(2))
    trainer.extend(extensions.MixupReport())
    trainer.extend(extensions.RandomState())
    trainer.extend(extensions.FailOnNonNumber())
    trainer.extend(LogReport(trigger=(1, "iteration")))
    trainer.extend(snapshot(autoload=autoload), trigger=(1, "epoch"))
    trainer.run()
    log = [
        {k: v for k, v in entry.items() if k != "elapsed_time"}
        for entry in trainer.get_extension("LogReport").log
    ]
    return log, json.loads((out / "mixup.json").read_text())


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize(
    "optimizer",
    [chainer.optimizers.SGD, chainer.optimizers.Adam, chainer.optimizers.AdamW],
)
def test_it_is_right_from_the_first_iteration(tmp_path, epoch, optimizer):
    whole = run(tmp_path / "whole", 4, False, optimizer)
    run(tmp_path / "halves", epoch, True, optimizer)
    assert run(tmp_path / "halves", 4, True, optimizer) == whole
