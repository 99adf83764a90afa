import functools

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.iterators import SerialIterator

from chainer_mmix import ManifoldMixupClassifier, MixupLayers
from chainer_mmix.analysis.findings import Findings
from chainer_mmix.training.extensions import (
    CalibrationEvaluator,
    DecisionBoundaryPlot,
    DeformationEvaluator,
    FgsmEvaluator,
    PredictorEvaluator,
    RepresentationPlot,
    SingularValuePlot,
)

N = 12


class Net(chainer.Chain):
    """A network that draws its weights in its first call."""

    def __init__(self, n_out):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(None, 4)
            self.l2 = L.Linear(None, n_out or 1)
        self.flat = n_out == 0

    def forward(self, x):
        y = self.l2(F.dropout(F.relu(self.l1(x))))
        return y[:, 0] if self.flat else y


def run(tmp_path, data, net, make, lossfun=F.softmax_cross_entropy, key=-1, layer="l1"):
    """Trains with an evaluator, and counts the steps before it fails."""
    np.random.seed(0)
    model = ManifoldMixupClassifier(
        MixupLayers(net(), [layer]), lossfun=lossfun, accfun=None, seed=0, label_key=key
    )
    optimizer = chainer.optimizers.SGD(0.1).setup(model)
    updater = chainer.training.StandardUpdater(SerialIterator(data, 4), optimizer)
    trainer = chainer.training.Trainer(updater, (2, "epoch"), str(tmp_path))
    if make:
        trainer.extend(make(SerialIterator(data, 5, False, False), model))
    trainer.extend(chainer.training.extensions.LogReport())
    try:
        trainer.run(show_loop_exception_msg=False)
    except (TypeError, ValueError) as e:
        assert updater.iteration == 0
        return str(e)
    log = trainer.get_extension("LogReport").log
    return [entry["main/loss"] for entry in log]


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((N, 2)).astype(np.float32)


SIGMOID = F.sigmoid_cross_entropy
LABELS = np.arange(N, dtype=np.int32) % 2
PLOTS = [
    functools.partial(SingularValuePlot, layer="l1"),
    functools.partial(RepresentationPlot, layer="l1"),
]
ALL = [CalibrationEvaluator, FgsmEvaluator, DecisionBoundaryPlot]


def flat_loss(y, t):
    return F.sigmoid_cross_entropy(F.reshape(y, (-1,)), t)


def squares(y, t):
    return F.mean((y - t) ** 2)


@pytest.mark.parametrize(
    "n_out, t, lossfun, makes",
    [
        (1, LABELS[:, None], SIGMOID, ALL + PLOTS),
        (1, LABELS, flat_loss, ALL),
        (0, LABELS, SIGMOID, ALL),
        (1, LABELS[:, None].astype("f"), squares, ALL + PLOTS),
        (2, np.stack([LABELS, LABELS], 1), SIGMOID, ALL + PLOTS),
        (2, np.stack([LABELS, LABELS], 1).astype("f"), squares, ALL + PLOTS),
    ],
    ids=["column", "labels", "flat", "float", "several", "several floats"],
)
def test_what_is_no_class_label_is_refused_before_the_training(
    tmp_path, x, n_out, t, lossfun, makes
):
    data = chainer.datasets.TupleDataset(x, t)
    assert len(run(tmp_path, data, lambda: Net(n_out), None, lossfun)) == 2
    for make in makes:
        message = run(tmp_path, data, lambda: Net(n_out), make, lossfun)
        assert isinstance(message, str) and "shape" in message


def test_the_test_of_the_first_batch_has_no_effect(tmp_path, x):
    data = chainer.datasets.TupleDataset(x, LABELS)
    expected = run(tmp_path, data, lambda: Net(2), None)
    for make in ALL + PLOTS:
        assert run(tmp_path, data, lambda: Net(2), make) == expected


class TwoInputs(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1, self.both = L.Linear(None, 3), L.Linear(None, 3)

    def forward(self, a, b):
        return self.both(self.l1(a) + F.sin(b[:, :1]))


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    "make, works",
    [
        (CalibrationEvaluator, True),
        (functools.partial(SingularValuePlot, layer="l1"), True),
        (FgsmEvaluator, False),
        (DeformationEvaluator, False),
        (DecisionBoundaryPlot, False),
    ],
)
def test_several_inputs_work_or_are_refused_at_once(tmp_path, x, named, make, works):
    data = [(a, a, t) for a, t in zip(x, LABELS, strict=True)]
    if named:
        data = [
            dict(zip(("a", "b", "label"), example, strict=True)) for example in data
        ]
    key = "label" if named else -1
    found = run(tmp_path, data, TwoInputs, make, key=key, layer="both")
    if works:
        assert len(found) == 2
    else:
        assert "networks of one input without a name, but this one takes 2" in found


def test_words_have_no_gradient(tmp_path):
    class Words(Net):
        def __init__(self):
            super().__init__(2)
            self.l1 = L.EmbedID(9, 4)

    data = [(np.int32(n), np.int32(n % 2)) for n in range(9)]
    assert "int32, and only floats" in run(tmp_path, data, Words, FgsmEvaluator)


class Stateful(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.LSTM(2, 2)

    def forward(self, x):
        return self.l1(x)


def test_attacks_on_a_network_with_a_state_are_refused(tmp_path, x):
    data = chainer.datasets.TupleDataset(x, LABELS)

    model = L.Classifier(Stateful())
    with pytest.raises(TypeError, match="keeps a state"):
        FgsmEvaluator(SerialIterator(data, 5, False, False), model)()


def test_a_measure_of_ones_own(tmp_path, x):
    class Trainer:
        out = str(tmp_path)

    def measure(target, batches):
        mean = np.mean([x.mean() for x, _ in batches])

        def write(path):
            path.write_text(f"{mean:.3f}")

        return Findings({"mean": mean}, {"mean.txt": write})

    data = chainer.datasets.TupleDataset(x, LABELS)
    iterator = SerialIterator(data, N, False, False)
    model = L.Classifier(Net(2))
    evaluator = PredictorEvaluator(iterator, model, measure)
    assert evaluator(Trainer()) == {"main/mean": pytest.approx(x.mean())}
    assert (tmp_path / "mean.txt").read_text() == f"{x.mean():.3f}"
    plain = PredictorEvaluator(iterator, model, lambda target, _: {"one": 1.0})
    assert plain() == {"main/one": 1}


def test_what_is_no_classifier_is_an_error(x):
    iterator = SerialIterator(list(zip(x, LABELS, strict=True)), 5, False, False)
    with pytest.raises(TypeError, match="link with a predictor, not Net"):
        CalibrationEvaluator(iterator, Net(2))
