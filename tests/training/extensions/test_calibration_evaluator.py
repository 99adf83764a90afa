import json

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.iterators import SerialIterator
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from chainer_mmix import ManifoldMixupClassifier
from chainer_mmix.analysis.calibration import expected_calibration_error
from chainer_mmix.training.extensions import CalibrationEvaluator


@pytest.fixture
def net():
    np.random.seed(0)
    return chainer.Sequential(L.Linear(4, 8), L.BatchNormalization(8), L.Linear(8, 3))


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((25, 4)).astype(np.float32)
    return x, rng.integers(0, 3, 25).astype(np.int32)


def expected_values(net, x, t):
    with chainer.using_config("train", False):
        scores = net(x).array.astype(np.float64)
    p = softmax(scores, axis=1)
    return {
        "ece": pytest.approx(expected_calibration_error(scores, t, 15)),
        "nll": pytest.approx(log_loss(t, p), rel=1e-6),
        "brier": pytest.approx(brier_score_loss(t, p, scale_by_half=False), rel=1e-6),
    }


def prefixed(values, prefix="main/"):
    return {prefix + key: value for key, value in values.items()}


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("make", [L.Classifier, ManifoldMixupClassifier])
def test_values_are_those_of_all_examples_together(net, data, iterate, make, one_hot):
    x, t = data
    target = make(net) if make is L.Classifier else make(net, mixup_hidden=False)
    labels = np.eye(3, dtype=np.float32)[t] if one_hot else t
    evaluator = CalibrationEvaluator(iterate(x, labels), target)
    for _ in range(2):  # the iterator begins anew
        assert evaluator() == prefixed(expected_values(net, x, t))


def test_the_bins_are_those_asked_for(net, data, iterate):
    x, t = data
    evaluator = CalibrationEvaluator(iterate(x, t), L.Classifier(net), n_bins=2)
    with chainer.using_config("train", False):
        scores = net(x).array
    expected = expected_calibration_error(scores, t, 2)
    assert evaluator()["main/ece"] == pytest.approx(expected)
    assert expected != pytest.approx(expected_calibration_error(scores, t, 15))


def test_several_inputs_by_place_and_by_name(data, iterate):
    class Net(chainer.Chain):
        def __init__(self):
            super().__init__(a=L.Linear(4, 3), b=L.Linear(4, 3))

        def forward(self, a, b):
            return self.a(a) + self.b(F.sin(b))

    x, t = data
    net = Net()
    expected = prefixed(expected_values(lambda x: net(x, 2 * x), x, t))
    target = L.Classifier(net, label_key=0)
    assert CalibrationEvaluator(iterate(t, x, 2 * x), target)() == expected
    target = L.Classifier(net, label_key="label")
    examples = [{"label": n, "b": 2 * x, "a": x} for x, n in zip(x, t, strict=True)]
    iterator = SerialIterator(examples, 10, False, False)
    assert CalibrationEvaluator(iterator, target)() == expected


@pytest.mark.parametrize(
    "name,prefix", [(None, "validation/main/"), ("test", "test/main/")]
)
def test_values_stand_in_the_log_beside_those_of_the_evaluator(
    make_trainer, iterate, tmp_path, name, prefix
):
    trainer = make_trainer(tmp_path, epoch=1)
    model = trainer.updater.get_optimizer("main").target
    x = np.random.default_rng(0).random((20, 1, 8, 8), np.float32)
    t = np.arange(20, dtype=np.int32) % 10
    trainer.extend(CalibrationEvaluator(iterate(x, t), model), name=name)
    trainer.run()
    (entry,) = trainer.get_extension("LogReport").log
    expected = expected_values(model.predictor, x, t)
    assert {key: entry[prefix + key] for key in expected} == expected
    assert "validation/main/loss" in entry


def test_the_bins_are_written_for_the_report(
    net, data, make_trainer, iterate, tmp_path
):
    trainer = make_trainer(tmp_path, epoch=1)
    evaluator = CalibrationEvaluator(iterate(*data), L.Classifier(net), n_bins=4)
    evaluator()
    assert not list(tmp_path.iterdir())  # there is no folder for it
    trainer.extend(evaluator)
    trainer.run()
    bins = json.loads((tmp_path / "reliability.json").read_text())
    x, t = data
    with chainer.using_config("train", False):
        p = softmax(net(x).array.astype(np.float64), axis=1)
    assert bins["edges"] == [0, 0.25, 0.5, 0.75, 1]
    for i, low in enumerate(bins["edges"][:-1]):
        inside = (p.max(axis=1) > low) & (p.max(axis=1) <= low + 0.25)
        assert bins["count"][i] == inside.sum()
        if not inside.any():
            assert bins["confidence"][i] is bins["accuracy"][i] is None
        else:
            right = p.argmax(axis=1)[inside] == t[inside]
            assert bins["accuracy"][i] == pytest.approx(right.mean())
            mean = p.max(axis=1)[inside].mean()
            assert bins["confidence"][i] == pytest.approx(mean, rel=1e-6)
    assert 0 in bins["count"]


def test_two_of_them_report_under_the_name_of_the_evaluator(
    net, data, make_trainer, iterate, tmp_path
):
    trainer = make_trainer(tmp_path)
    evaluators = [
        CalibrationEvaluator(iterate(*data), L.Classifier(net)) for _ in range(2)
    ]
    for evaluator in evaluators:
        trainer.extend(evaluator)
    assert trainer.get_extension("CalibrationEvaluator_1") is evaluators[1]
    for evaluator in evaluators:
        assert set(evaluator()) == {
            "validation/main/ece",
            "validation/main/nll",
            "validation/main/brier",
        }
