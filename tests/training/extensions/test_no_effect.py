"""A run with the extensions trains as it does without them."""

import random

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator

from chainer_mmix import ManifoldMixupClassifier, MixupLayers, MixupPolicy
from chainer_mmix.training import extensions, find_snapshot, load_snapshot


class Plane(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(None, 8)
            self.bn = L.BatchNormalization(8)
            self.l2 = L.Linear(8, 2)

    def forward(self, x):
        return self.l2(F.dropout(F.relu(self.bn(self.l1(x)))))


def plane_trainer(out):
    """A run of points in a plane, by a wrapped network."""
    np.random.seed(0)
    random.seed(0)
    x = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    dataset = TupleDataset(x, (x[:, 0] * x[:, 1] > 0).astype(np.int32))
    policy = MixupPolicy(1, per="sample", seed=0)
    model = ManifoldMixupClassifier(
        MixupLayers(Plane(), ["input", "bn"]), policy=policy
    )
    optimizer = chainer.optimizers.Adam().setup(model)
    updater = chainer.training.StandardUpdater(SerialIterator(dataset, 16), optimizer)
    trainer = chainer.training.Trainer(updater, (3, "epoch"), str(out))
    trainer.extend(extensions.MixupReport())
    trainer.extend(chainer.training.extensions.LogReport())
    trainer.extend(chainer.training.extensions.snapshot())
    return trainer


def extend_all(trainer, data, shape):
    target = trainer.updater.get_optimizer("main").target
    dataset = trainer.updater.get_iterator("main").dataset
    layer = "l1"
    trainer.extend(extensions.Evaluator(data, target), name="second")
    trainer.extend(extensions.CalibrationEvaluator(data, target))
    trainer.extend(extensions.FgsmEvaluator(data, target))
    trainer.extend(extensions.SingularValuePlot(data, target, layer))
    trainer.extend(extensions.RepresentationPlot(data, target, layer))
    if shape == "images":
        trainer.extend(extensions.MixupPreview(dataset, n_pair=2))
        trainer.extend(extensions.DeformationEvaluator(data, target))
        trainer.extend(extensions.SingularValuePlot(data, target, 1))
    else:
        trainer.extend(extensions.DecisionBoundaryPlot(data, target, resolution=20))
        trainer.extend(
            extensions.RepresentationPlot(data, target, "input", method="tsne")
        )


OWN = ("ece", "nll", "brier", "fgsm_", "spread/", "deformed_", "unsure")


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["images", "points"])
def test_the_log_is_that_of_a_run_without(
    make_trainer, log_of, serialized, tmp_path, shape
):
    def make(name):
        out = tmp_path / name
        if shape == "images":
            return make_trainer(out, augment=False)
        return plane_trainer(out)

    logs, states = [], []
    for name in ("without", "with"):
        trainer = make(name)
        # In random order, of which the first is drawn here.
        dataset = trainer.updater.get_iterator("main").dataset
        data = SerialIterator(dataset, 7, repeat=False, shuffle=True)
        if name == "with":
            extend_all(trainer, data, shape)
        trainer.run()
        logs.append(log_of(trainer))
        model = trainer.updater.get_optimizer("main").target
        states.append((serialized(model), np.random.get_state()[1:], random.getstate()))
    n_own = 0
    for plain, full in zip(*logs, strict=True):
        own = {
            k
            for k in full
            if (
                k.removeprefix("validation/main/").startswith(OWN)
                and k.startswith("validation/main/")
            )
            or k in ("second/main/loss", "second/main/accuracy")
        }
        assert {k: full[k] for k in full.keys() - own} == plain
        n_own += len(own)
        assert all(np.isfinite(full[k]) for k in own)
    assert n_own == len(logs[0]) * (2 + 3 + 3 + (2 + 8 if shape == "images" else 1 + 1))
    (a, *a_random), (b, *b_random) = states
    for key, value in a.items():  # the policy and the batch statistics among them
        np.testing.assert_array_equal(value, b[key], key)
    np.testing.assert_equal(a_random, b_random)
    pictures = {path.name for path in (tmp_path / "with").glob("*.png")}
    expected = {"singular_values_l1.png", "representation_l1.png"}
    if shape == "images":
        expected |= {"mixup_preview.png", "singular_values_1.png"}
    else:
        expected |= {"decision_boundary.png", "representation_input.png"}
    assert pictures - {"loss.png", "accuracy.png"} == expected


def test_a_snapshot_with_them_resumes_to_the_same_log(make_trainer, log_of, tmp_path):
    def make(name, epoch):
        trainer = make_trainer(tmp_path / name, epoch=epoch)
        target = trainer.updater.get_optimizer("main").target
        dataset = trainer.updater.get_iterator("main").dataset
        data = SerialIterator(dataset, 7, repeat=False, shuffle=True)
        evaluator = extensions.CalibrationEvaluator(data, target)
        trainer.extend(evaluator, trigger=(3, "iteration"))
        trainer.extend(extensions.SingularValuePlot(data, target, "l1"))
        return trainer

    whole = make("whole", 2)
    whole.run()
    make("halves", 1).run()
    second = make("halves", 2)
    load_snapshot(find_snapshot(tmp_path / "halves"), second)
    second.run()
    assert log_of(second) == log_of(whole)
    assert "validation/main/ece" in log_of(whole)[1]
