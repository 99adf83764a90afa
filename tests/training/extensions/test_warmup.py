import chainer
import chainer.links as L
import numpy as np
import pytest
from chainer.iterators import SerialIterator
from chainer.serializers import load_npz, save_npz
from chainer.training import StandardUpdater, Trainer, extensions

from chainer_mmix.training.extensions import LearningRate


def make(out, kind, epoch):
    data = [(np.ones(2, np.float32), np.int32(0))] * 10
    model = L.Classifier(L.Linear(2, 2))
    optimizer = getattr(chainer.optimizers, kind)(0.1).setup(model)
    updater = StandardUpdater(SerialIterator(data, 2), optimizer)
    trainer = Trainer(updater, (epoch, "epoch"), out)
    trainer.extend(LearningRate([3], scale=4, warmup=2))
    trainer.extend(extensions.LogReport())
    rates = []

    def note(trainer):
        rates.append(optimizer.alpha if kind == "Adam" else optimizer.lr)

    trainer.extend(note, trigger=(1, "iteration"), priority=0)
    return trainer, rates


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_the_rate_warms_up_by_iterations(kind, tmp_path):
    trainer, rates = make(tmp_path, kind, 4)
    trainer.run()
    done = np.arange(1, 21) / 5  # epochs
    expected = 0.1 * (1 + 3 * np.minimum(1, done / 2)) * np.where(done >= 3, 0.1, 1)
    np.testing.assert_allclose(rates, expected)
    log = trainer.get_extension("LogReport").log
    # As at the end of an epoch.
    np.testing.assert_allclose([e["lr"] for e in log], [0.22, 0.37, 0.4, 0.04])
    # A resumed one goes on.
    first, _ = make(tmp_path, kind, 1)
    first.run()
    save_npz(tmp_path / "snapshot.npz", first)
    second, rest = make(tmp_path, kind, 4)
    load_npz(tmp_path / "snapshot.npz", second)
    second.run()
    np.testing.assert_allclose(rest, expected[5:])
