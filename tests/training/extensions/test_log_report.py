import json

import chainer
import chainer.links as L
import numpy as np
import pytest
from chainer.iterators import SerialIterator
from chainer.training import StandardUpdater, Trainer
from chainer.training import extensions as chainers

from chainer_mmix.training.extensions import LogReport, MixupReport


class Buckets(SerialIterator):
    """Minibatches of two sizes."""

    def __next__(self):
        self.batch_size = 3 if self.current_position else 7
        return super().__next__()

    next = __next__


def run(out, iterator, report):
    np.random.seed(0)
    model = L.Classifier(L.Linear(2, 2))
    updater = StandardUpdater(iterator, chainer.optimizers.SGD(0.1).setup(model))
    trainer = Trainer(updater, (2, "epoch"), str(out))
    trainer.extend(report)
    trainer.extend(MixupReport())
    seen = []

    def note(trainer):
        loss = float(trainer.observation["main/loss"].array)
        seen.append((len(model.y), loss))

    trainer.extend(note, name="note", trigger=(1, "iteration"), priority=1000)
    trainer.run()
    return trainer.get_extension("LogReport").log, seen


DATA = chainer.datasets.TupleDataset(
    np.random.default_rng(0).random((10, 2), np.float32), np.arange(10) % 2
)


def test_iterations_are_weighed_by_their_examples(tmp_path):
    log, seen = run(tmp_path, Buckets(DATA, 7, shuffle=False), LogReport())
    content = json.loads((tmp_path / "mixup.json").read_text())
    sizes, losses = zip(*seen, strict=True)
    expected = np.average(losses, weights=sizes)
    assert content["loss"]["none"] == pytest.approx(expected, rel=1e-6)
    assert [n for n, _ in seen] == [7, 3, 7, 3]
    for epoch, entry in enumerate(log):
        sizes, losses = zip(*seen[2 * epoch : 2 * epoch + 2], strict=True)
        expected = pytest.approx(np.average(losses, weights=sizes), rel=1e-6)
        assert entry["main/loss"] == expected != np.mean(losses)
        assert entry["epoch"] == epoch + 1


def test_where_all_are_of_one_size_it_logs_what_chainer_does(tmp_path):
    logs = [
        run(tmp_path, SerialIterator(DATA, 4, shuffle=False), report)[0]
        for report in (LogReport(), chainers.LogReport())
    ]
    for ours, theirs in zip(*logs, strict=True):
        del ours["elapsed_time"], theirs["elapsed_time"]
        assert ours == pytest.approx(theirs)
