import functools
import random
import warnings

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.datasets import TupleDataset
from chainer.iterators import MultithreadIterator, SerialIterator
from scipy.special import expit, log_softmax

from chainer_mmix import ManifoldMixupClassifier
from chainer_mmix.training.extensions import (
    CalibrationEvaluator,
    DeformationEvaluator,
    Evaluator,
    FgsmEvaluator,
    PredictorEvaluator,
    RepresentationPlot,
    SingularValuePlot,
)

N, C = 23, 3


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((N, C)).astype(np.float32)


@pytest.fixture
def t():
    t = np.random.default_rng(1).integers(0, C, N).astype(np.int32)
    t[[0, 1, 2, 3, 4, 9, 21]] = -1  # more in the first batches than in the others
    return t


class Same(chainer.Chain):
    """Its input is its output."""

    def forward(self, x):
        return chainer.as_variable(x)


def cross_entropy(y, t):
    y = np.moveaxis(y, 1, -1).reshape(-1, y.shape[1]).astype(np.float64)
    return -log_softmax(y, axis=1)[np.arange(t.size), t.ravel()]


@pytest.mark.parametrize("batchsize", [1, 4, 5, 22, 23])
@pytest.mark.parametrize("make", [L.Classifier, ManifoldMixupClassifier])
def test_means_are_those_of_all_examples(x, t, iterate, batchsize, make):
    t = abs(t)
    options = {} if make is L.Classifier else {"mixup_hidden": False}
    result = Evaluator(iterate(x, t, batchsize=batchsize), make(Same(), **options))()
    hits = (x.argmax(axis=1) == t).sum()
    assert 0 < hits < N
    assert result == {
        "main/accuracy": pytest.approx(hits / N, rel=1e-6),
        "main/loss": pytest.approx(cross_entropy(x, t).mean(), rel=1e-6),
    }


@pytest.mark.parametrize("batchsize", [4, 5, 23])
@pytest.mark.parametrize("ignores", [False, True])
def test_ignored_labels_do_not_count(x, t, iterate, batchsize, ignores):
    accfun = functools.partial(F.accuracy, ignore_label=-1) if ignores else F.accuracy
    target = L.Classifier(Same(), accfun=accfun)
    result = Evaluator(iterate(x, t, batchsize=batchsize), target)()
    valid = t != -1
    hits = (x.argmax(axis=1) == t).sum()
    expected = cross_entropy(x[valid], t[valid]).mean()
    assert result["main/loss"] == pytest.approx(expected, rel=1e-6)
    n = valid.sum() if ignores else N
    assert result["main/accuracy"] == pytest.approx(hits / n, rel=1e-6)


@pytest.mark.parametrize("make", [L.Classifier, ManifoldMixupClassifier])
@pytest.mark.parametrize("accfun", [F.accuracy, functools.partial(F.accuracy)])
def test_the_size_of_minibatches_does_not_matter(x, t, iterate, make, accfun):
    options = {} if make is L.Classifier else {"mixup_hidden": False, "top_k": 2}
    target = make(Same(), accfun=accfun, **options)
    whole = Evaluator(iterate(x, t, batchsize=N), target)()
    for batchsize in (1, 4, 9):
        found = Evaluator(iterate(x, t, batchsize=batchsize), target)()
        assert found == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("ignore", [None, 255])
def test_labels_of_maps_count_one_by_one(iterate, ignore):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((7, C, 4, 5)).astype(np.float32)
    t = rng.integers(0, C, (7, 4, 5)).astype(np.int32)
    options = {}
    if ignore:
        t[0], t[6, :2] = ignore, ignore
        options = {"ignore_label": ignore}
    target = L.Classifier(
        Same(),
        functools.partial(F.softmax_cross_entropy, **options),
        functools.partial(F.accuracy, **options),
    )
    result = Evaluator(iterate(y, t, batchsize=3), target)()
    valid = t != ignore
    values = np.moveaxis(y, 1, -1)[valid]
    expected = cross_entropy(values, t[valid]).mean()
    assert result["main/loss"] == pytest.approx(expected, rel=1e-6)
    expected = (values.argmax(axis=1) == t[valid]).mean()
    assert result["main/accuracy"] == pytest.approx(expected, rel=1e-6)


def test_maps_of_several_sizes():
    rng = np.random.default_rng(0)
    data = [
        (rng.standard_normal((C, *size)).astype("f"), rng.integers(0, C, size, "i"))
        for size in ((4, 5), (2, 2), (3, 1))
    ]
    iterator = SerialIterator(data, 1, repeat=False, shuffle=False)
    result = Evaluator(iterator, L.Classifier(Same()))()
    hits = [(y.argmax(axis=0) == t).ravel() for y, t in data]
    assert result["main/accuracy"] == pytest.approx(np.concatenate(hits).mean())
    losses = [cross_entropy(y[None], t[None]) for y, t in data]
    assert result["main/loss"] == pytest.approx(np.concatenate(losses).mean())


def test_several_labels_a_sample(x, iterate):
    t = np.random.default_rng(2).integers(-1, 2, x.shape).astype(np.int32)
    t[:4] = -1
    t[4:8, 0] = -1
    target = L.Classifier(Same(), F.sigmoid_cross_entropy, F.binary_accuracy)
    result = Evaluator(iterate(x, t, batchsize=5), target)()
    p, valid = expit(x.astype(np.float64)), t != -1
    loss = -np.log(np.where(t == 1, p, 1 - p))[valid].mean()
    assert result["main/loss"] == pytest.approx(loss, rel=1e-5)
    assert result["main/accuracy"] == pytest.approx(((x >= 0) == t)[valid].mean())


def test_a_loss_that_is_divided_by_the_batch_is_weighed_by_examples(x, t, iterate):
    lossfun = functools.partial(F.softmax_cross_entropy, normalize=False)
    result = Evaluator(iterate(x, t, batchsize=5), L.Classifier(Same(), lossfun))()
    valid = t != -1
    expected = cross_entropy(x[valid], t[valid]).sum() / N
    assert result["main/loss"] == pytest.approx(expected, rel=1e-6)


def test_a_mean_of_nothing_is_nan(x, iterate):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = Evaluator(iterate(x, np.full(N, -1, "i")), L.Classifier(Same()))()
    assert np.isnan(result["main/loss"]) and result["main/accuracy"] == 0


def test_an_eval_func_and_weights_of_ones_own(x, t, iterate):
    target = L.Classifier(Same())

    def report(x, t):
        chainer.report({"size": len(x), "own": (x.sum(), x.size + 100)}, target)

    evaluator = Evaluator(iterate(x, t, batchsize=5), target, eval_func=report)
    result = evaluator()
    assert result["main/size"] == pytest.approx((20 * 5 + 3 * 3) / N)
    sums = [x[i : i + 5].sum(dtype=float) for i in range(0, N, 5)]
    weights = [115] * 4 + [109]
    assert result["main/own"] == pytest.approx(np.average(sums, weights=weights))
    assert evaluator.eval_func is report


@pytest.mark.parametrize("smaller", [10, 4])
def test_fgsm_accuracy_at_0_is_the_accuracy(x, t, iterate, smaller):
    for accfun, labels in (
        (F.accuracy, abs(t)),
        (functools.partial(F.accuracy, ignore_label=-1), t),
    ):
        target = L.Classifier(Same(), accfun=accfun)
        result = Evaluator(iterate(x, labels, batchsize=smaller), target)()
        attacked = FgsmEvaluator(iterate(x, labels), target, eps=[0])()
        assert attacked == {
            "main/fgsm_accuracy/0": pytest.approx(result["main/accuracy"], rel=1e-6)
        }


@pytest.mark.parametrize("ignore", [-1, 255])
def test_other_evaluators_leave_ignored_labels_out_too(iterate, tmp_path, ignore):
    class Trainer:
        out = str(tmp_path)

    np.random.seed(0)
    x = np.random.default_rng(0).standard_normal((20, 1, 4, 4)).astype(np.float32)
    t = np.random.default_rng(1).integers(0, 2, 20).astype(np.int32)
    valid = np.arange(20) % 3 > 0
    marked = np.where(valid, t, ignore).astype(np.int32)
    target = L.Classifier(
        chainer.Sequential(L.Linear(16, 2)),
        functools.partial(F.softmax_cross_entropy, ignore_label=ignore),
    )
    for make in (
        CalibrationEvaluator,
        FgsmEvaluator,
        functools.partial(DeformationEvaluator, deformations=[("zoom", 0.5)]),
        functools.partial(SingularValuePlot, layer="0"),
        functools.partial(RepresentationPlot, layer="0"),
    ):
        found = make(iterate(x, marked, batchsize=4), target)(Trainer())
        right = make(iterate(x[valid], t[valid], batchsize=4), target)(Trainer())
        assert found == pytest.approx(right)
        assert found != pytest.approx(make(iterate(x, t), target)()) or not found


# State


class Recurrent(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.lstm = L.LSTM(C, C)

    def forward(self, x):
        return self.lstm(x)


@pytest.mark.parametrize("make", [Evaluator, CalibrationEvaluator])
def test_states_begin_anew_and_stay(x, t, iterate, make):
    np.random.seed(0)
    target = L.Classifier(Recurrent())
    target(x[:5], t[:5])
    lstm = target.predictor.lstm
    h, y = lstm.h, target.y
    heard = []

    def hook(extension):
        heard.append((extension, lstm.h))

    evaluator = make(iterate(x, t), target, eval_hook=hook)
    assert evaluator() == evaluator()
    assert heard == [(evaluator, None)] * 2
    assert lstm.h is h and target.y is y


def test_a_hook_gives_the_state(x, t, iterate):
    target = L.Classifier(Recurrent())
    c = chainer.Variable(np.ones((N, C), np.float32))
    lstm = target.predictor.lstm

    def hook(extension):
        lstm.set_state(c, c)

    plain = CalibrationEvaluator(iterate(x, t), target)()
    with_state = CalibrationEvaluator(iterate(x, t), target, eval_hook=hook)()
    assert plain != with_state and lstm.h is None


# Random numbers


def states():
    return np.random.get_state()[1:], random.getstate()


@pytest.mark.parametrize("make", [Evaluator, CalibrationEvaluator, FgsmEvaluator])
@pytest.mark.parametrize("iterator", [SerialIterator, MultithreadIterator])
def test_an_order_at_random_comes_from_a_generator_of_its_own(x, t, make, iterator):
    data = iterator(TupleDataset(x, t), 5, repeat=False, shuffle=True)
    evaluators = [make(data, L.Classifier(Same())) for _ in range(2)]
    before = states()
    results = [evaluator() for evaluator in evaluators * 2]
    np.testing.assert_equal(states(), before)
    assert results == [results[0]] * 4
    data.finalize()


def test_an_order_sampler_of_ones_own_stays(x, t):
    rng = np.random.RandomState(0)
    sampler = chainer.iterators.ShuffleOrderSampler(rng)
    data = SerialIterator(TupleDataset(x, t), 5, repeat=False, order_sampler=sampler)
    Evaluator(data, L.Classifier(Same()))()
    assert sampler._random is rng


def test_what_a_thread_draws_meanwhile_is_not_drawn_again(x, t, iterate):
    drawn = []

    def measure(target, batches):
        drawn.append((np.random.rand(), random.random()))  # as a thread would
        return {}

    evaluator = PredictorEvaluator(iterate(x, t), L.Classifier(Same()), measure)
    for _ in range(3):
        evaluator()
    assert len(set(drawn)) == 3


def test_networks_that_a_function_calls_keep_their_states(x, t, iterate):
    other = Recurrent()

    def evaluate(x, t):
        other(x)

    def measure(target, batches):
        return {"mean": np.mean([other(x).array.mean() for x, _ in batches])}

    for evaluator in (
        Evaluator(iterate(x, t), L.Classifier(Same()), eval_func=evaluate),
        PredictorEvaluator(iterate(x, t), L.Classifier(Same()), measure),
    ):
        evaluator()
        assert other.lstm.h is None


def test_examples_are_counted_whatever_the_converter_makes_of_them(x):
    # Another axis first, as for recurrent networks, and an argument that is a number.
    def transposed(batch, device):
        return 0.5, np.stack(batch, axis=-1)

    link = Same()

    def mean(number, columns):
        chainer.report({"mean": columns.mean(dtype=np.float64)}, link)

    iterator = SerialIterator(x, 10, repeat=False, shuffle=False)
    found = Evaluator(iterator, link, transposed, eval_func=mean)()
    assert found["main/mean"] == pytest.approx(x.mean(dtype=np.float64))
