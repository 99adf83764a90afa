import chainer
import chainer.links as L
import numpy as np
import pytest
from chainer.training import extensions

from chainer_mmix import ManifoldMixupClassifier
from chainer_mmix.links.sequential import MixupSequential
from chainer_mmix.training.extensions import MixupOff


def trainer_and_lambdas(out, epoch):
    """A Trainer of two iterations an epoch, and the lambdas that it will have used."""
    model = ManifoldMixupClassifier(MixupSequential((L.Linear(3, 2), True)), seed=0)
    dataset = [(np.zeros(3, np.float32), np.int32(0))] * 8
    iterator = chainer.iterators.SerialIterator(dataset, 4)
    optimizer = chainer.optimizers.SGD().setup(model)
    updater = chainer.training.StandardUpdater(iterator, optimizer)
    trainer = chainer.training.Trainer(updater, (epoch, "epoch"), str(out))
    lambdas = []
    trainer.extend(
        lambda trainer: lambdas.append(trainer.observation["main/lam"]),
        name="lambdas",
        trigger=(1, "iteration"),
    )
    return trainer, lambdas


def test_it_stops_after_the_epoch(tmp_path):
    trainer, lambdas = trainer_and_lambdas(tmp_path, 4)
    trainer.extend(MixupOff(2))
    trainer.run()
    assert all(lam < 1 for lam in lambdas[:4]) and lambdas[4:] == [1] * 4


def test_replicas_stop_too(tmp_path):
    model = ManifoldMixupClassifier(MixupSequential((L.Linear(3, 2), True)), seed=0)
    dataset = [(np.zeros(3, np.float32), np.int32(0))] * 8
    updater = chainer.training.updaters.ParallelUpdater(
        chainer.iterators.SerialIterator(dataset, 4),
        chainer.optimizers.SGD().setup(model),
        models={"main": model, "second": model.copy()},
        devices={"main": "@numpy", "second": "@numpy"},
    )
    trainer = chainer.training.Trainer(updater, (2, "epoch"), str(tmp_path))
    trainer.extend(MixupOff(1))
    trainer.run()
    assert [m.mixup_hidden for m in updater._models.values()] == [False, False]


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_resume_before_and_after_it(tmp_path, epoch):
    trainer, _ = trainer_and_lambdas(tmp_path, epoch)
    trainer.extend(MixupOff(2))
    trainer.extend(extensions.snapshot(filename="snapshot"))
    trainer.run()
    trainer, lambdas = trainer_and_lambdas(tmp_path, 4)
    trainer.extend(MixupOff(2))
    chainer.serializers.load_npz(tmp_path / "snapshot", trainer)
    trainer.run()
    assert [lam < 1 for lam in lambdas] == [True, True, False, False, False, False][
        2 * (epoch - 1) :
    ]


def test_chainers_own_extensions_shift_a_policy(tmp_path):
    trainer, _ = trainer_and_lambdas(tmp_path, 4)
    policy = trainer.updater.get_optimizer("main").target.policy
    trainer.extend(
        extensions.LinearShift("prob", (1.0, 0.0), (0, 8), optimizer=policy), name="a"
    )
    trainer.extend(
        extensions.ExponentialShift("alpha", 0.5, optimizer=policy), name="b"
    )
    values = []
    trainer.extend(
        lambda trainer: values.append((policy.prob, policy.alpha)),
        trigger=(1, "iteration"),
        name="c",
        priority=0,
    )
    trainer.run()
    np.testing.assert_allclose([prob for prob, _ in values], 1 - np.arange(1, 9) / 8)
    np.testing.assert_allclose(
        [alpha for _, alpha in values], 0.2 * 0.5 ** np.arange(1, 9)
    )
