"""An Evaluator that replays against a usual one: the same numbers, bit for bit."""

import copy
import functools
import pickle
import warnings

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.dataset import concat_examples
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator

import chainer_revive
from chainer_mmix import ManifoldMixupClassifier, models
from chainer_mmix.training import GraphUpdater
from chainer_mmix.training.extensions import Evaluator
from chainer_revive.cpu.recording import Plan

pytest.importorskip("numba")

pytestmark = pytest.mark.usefixtures("compiled_loops")

random = np.random.RandomState(0)
X = random.standard_normal((53, 3, 8, 8)).astype("f")
T = random.randint(0, 5, 53).astype("i")
IGNORED = np.where(random.rand(53) < 0.4, -1, T).astype("i")


class Net(chainer.Chain):
    """Batch normalisation that waits and that does not, and other functions."""

    scale = 1.0

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.first = L.BatchNormalization(3)
            self.conv = L.Convolution2D(3, 32, 3, pad=1)
            self.norm = L.BatchNormalization(32)
            self.wide = L.Convolution2D(32, 64, 3, pad=1)
            self.fc = L.Linear(None, 5)
        self.own_scale, self.activation = 1.0, F.relu

    def forward(self, x, *_, **__):
        h = self.activation(self.norm(self.conv(self.first(x))))
        h = F.average_pooling_2d(F.dropout(self.wide(h)), 2)
        return self.fc(h) * self.own_scale


def classify(net=Net, cls=L.Classifier, **options):
    np.random.seed(0)
    if cls is ManifoldMixupClassifier:
        options["mixup_hidden"] = False
    target = cls(net(), **options)
    with chainer.using_config("train", False):
        target.predictor(X[:1])
    return target


def standardising(mean, std):
    net = models.CNN(5, width=16)
    net.standardise(mean, std)
    return net


def evaluators(target, t=T, batchsize=8, **options):
    """Returns one that replays, and a usual one, of the same target."""
    return [
        Evaluator(
            SerialIterator(TupleDataset(X, t), batchsize, repeat=False, shuffle=False),
            *(target,),
            graph=graph,
            **options,
        )
        for graph in (True, False)
    ]


def train(target):
    """Changes all numbers of a target where they are."""
    for link in target.links():
        for name in link._persistent:
            if isinstance(value := getattr(link, name), np.ndarray):
                value *= 1.1
                value += 0.1
    for param in target.params():
        if param.array is not None:
            param.array *= 0.9


def assert_same(ours, usual):
    found, wanted = ours(), usual()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == value or np.isnan([found[name], value]).all(), name
    return wanted


def replays(evaluator):
    return [kind.replay for kind in evaluator._graphs._kinds.values() if kind.replay]


def snapshot(target):
    return {
        path: {
            name: value.copy() if isinstance(value, np.ndarray) else value
            for name, value in vars(link).items()
        }
        for path, link in target.namedlinks()
    }


def losses(y, t):
    return F.softmax_cross_entropy(y, t) + F.sum(y**2)


SETTINGS = {
    "Chainer's": {},
    "ours": {"cls": ManifoldMixupClassifier},
    "top k": {"cls": ManifoldMixupClassifier, "top_k": 2},
    "no accuracy": {"cls": ManifoldMixupClassifier, "accfun": None},
    "label smoothing": {"cls": ManifoldMixupClassifier, "label_smoothing": 0.1},
    "own loss": {"lossfun": losses},
    "partial": {"accfun": functools.partial(F.accuracy, ignore_label=-1)},
}


@pytest.mark.parametrize("t", [T, IGNORED], ids=["labels", "ignored labels"])
@pytest.mark.parametrize("name", list(SETTINGS))
def test_means_are_those_of_a_usual_evaluator(name, t):
    target = classify(**SETTINGS[name])
    ours, usual = evaluators(target, t)
    results = []
    for _ in range(4):
        results.append(assert_same(ours, usual))
        train(target)
    assert len({result["main/loss"] for result in results}) == 4
    assert ours._graphs.reason is None
    assert len(replays(ours)) == 1  # for all evaluations


@pytest.mark.parametrize(
    "network",
    [
        lambda: models.CNN(5, width=16),
        lambda: standardising([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]),
        lambda: standardising(None, None),
        lambda: models.PreActResNet18(5, width=16),
        lambda: models.WideResNet(5, depth=10, width=1),
        pytest.param(lambda: models.ResNet50(5), marks=pytest.mark.slow),
    ],
)
def test_networks_of_the_package(network):
    target = classify(network, ManifoldMixupClassifier)
    ours, usual = evaluators(target)
    for _ in range(2):
        assert_same(ours, usual)
        train(target)
    assert ours._graphs.reason is None and len(replays(ours)) == 1


def test_the_network_is_left_as_it_was():
    target = classify()
    target(X[:8], T[:8])
    target.cleargrads()
    target.loss.backward()
    ours, _ = evaluators(target)
    before = snapshot(target)
    grads = [param.grad for param in target.params()]
    numbers = [grad.copy() for grad in grads]
    for _ in range(3):
        ours()
    assert replays(ours)
    for path, values in snapshot(target).items():
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, before[path][name])
            else:
                assert value is before[path][name]
    for param, grad, values in zip(target.params(), grads, numbers, strict=True):
        assert param.grad is grad
        np.testing.assert_array_equal(grad, values)


class Reporting(Net):
    def forward(self, x, *_, **__):
        y = super().forward(x)
        chainer.report({"mean": F.mean(y)}, self)
        chainer.report({"largest": F.max(y)}, self.fc)
        return y


def test_what_is_reported_is_a_copy():
    class Keeping(Evaluator):
        def _call(self, *args, **kwargs):
            super()._call(*args, **kwargs)
            observation = chainer.reporter.get_current_reporter().observation
            value = observation["main/predictor/mean"]
            kept.append((value, float(value.array)))

    kept = []
    iterator = SerialIterator(TupleDataset(X, T), 8, repeat=False, shuffle=False)
    Keeping(iterator, classify(Reporting), graph=True)()
    assert [float(value.array) for value, _ in kept] == [value for _, value in kept]
    assert len({value for _, value in kept}) == 7


def own_scale(target):
    target.predictor.own_scale = 0.5


def activation(target):
    target.predictor.activation = F.sigmoid


def eps(target):
    target.predictor.norm.eps = 0.1


def lossfun(target):
    target.lossfun = losses


def no_accuracy(target):
    target.compute_accuracy = False


def accuracy_of_the_class(target):
    type(target).compute_accuracy = False


def accfun(target):
    target.accfun = functools.partial(F.accuracy, ignore_label=1)


def array(target):
    target.predictor.conv.W.array = target.predictor.conv.W.array * 2


def statistics(target):
    target.predictor.norm.avg_mean = target.predictor.norm.avg_mean + 1


def winograd(target):
    chainer.global_config.winograd = 4


def child(target):
    target.predictor.fc = L.Linear(1024, 5)


def child_without_arrays(target):
    del target.predictor.activation
    with target.predictor.init_scope():
        target.predictor.activation = Sigmoid()


def weights_from_a_file(target):
    np.random.seed(3)
    other = Net()
    with chainer.using_config("train", False):
        other(X[:2])
    train(other)
    path = "weights.npz"
    chainer.serializers.save_npz(path, other)
    chainer.serializers.load_npz(path, target.predictor)


class Relu(chainer.Link):
    def forward(self, x):
        return F.relu(x)


class Sigmoid(chainer.Link):
    def forward(self, x):
        return F.sigmoid(x)


class WithChild(Net):
    def __init__(self):
        super().__init__()
        del self.activation
        with self.init_scope():
            self.activation = Relu()


@pytest.mark.parametrize(
    "change",
    [
        *(own_scale, activation, eps, lossfun, no_accuracy, accuracy_of_the_class),
        *(accfun, array, statistics, winograd, child, weights_from_a_file),
        child_without_arrays,
    ],
)
def test_what_is_changed_between_evaluations_counts(change, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(L.Classifier, "compute_accuracy", True)
    monkeypatch.setattr(chainer.global_config, "winograd", True, raising=False)
    target = classify(WithChild if change is child_without_arrays else Net)
    target.predictor.wide.W.array *= 30  # so that the last bits show
    ours, usual = evaluators(target)
    before = assert_same(ours, usual)
    assert_same(ours, usual)
    change(target)
    assert assert_same(ours, usual) != before
    assert_same(ours, usual)
    assert ours._graphs.reason is None
    in_place = change in (weights_from_a_file, statistics)
    assert len(replays(ours)) == (1 if in_place else 2)


class Recurrent(Net):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.lstm = L.LSTM(5, 5)

    def forward(self, x, *_, **__):
        return self.lstm(super().forward(x))


class Counting(Net):
    def __init__(self):
        super().__init__()
        self.n = 0

    def forward(self, x, *_, **__):
        self.n += 1
        return super().forward(x) * min(self.n, 5)


class Drawing(Net):
    def forward(self, x, *_, **__):
        with chainer.using_config("train", True):
            x = F.dropout(x)
        return super().forward(x)


class ReadingNumbers(Net):
    def forward(self, x, *_, **__):
        y = super().forward(x)
        return y * float(y.array.max())


class OnTheHost(Net):
    def forward(self, x, *_, **__):
        y = super().forward(x)
        chainer.report({"largest": float(y.array.max())}, self)
        return y


class Updating(Net):
    def forward(self, x, *_, **__):
        with chainer.using_config("train", True):
            x = self.first(x)
        return super().forward(x)


class Teaching(Net):
    """Holds a link that is no child."""

    def __init__(self):
        super().__init__()
        self.teachers = [L.Linear(192, 5)]

    def forward(self, x, *_, **__):
        return super().forward(x) + self.teachers[0](x)


class Comparing(Net):
    def forward(self, x, *_, **__):
        y = super().forward(x)
        chainer.report({"is_large": np.array((x > 4).any())}, self)
        return y


class OwnForward(L.Classifier):
    def forward(self, x, t):
        return super().forward(x, t)


@pytest.mark.parametrize(
    "net, cls, reason",
    [
        (Recurrent, L.Classifier, "LinearFunction reads an array that no function"),
        (Drawing, L.Classifier, "random numbers"),
        (ReadingNumbers, L.Classifier, "not all of its numbers"),
        (OnTheHost, L.Classifier, "largest is reported as a number of the host"),
        (Comparing, L.Classifier, "returns an array that no function has computed"),
        (Teaching, L.Classifier, "holds links that are no children"),
        (Net, OwnForward, "OwnForward has a forward of its own"),
    ],
)
def test_what_cannot_be_replayed_is_said_once_and_runs_as_usual(net, cls, reason):
    target = classify(net, cls)
    ours, usual = evaluators(target)

    def seeded(evaluator):
        np.random.seed(7)
        return evaluator()

    with pytest.warns(UserWarning, match=reason) as warned:
        for _ in range(3):
            both = [functools.partial(seeded, e) for e in (ours, usual)]
            assert_same(*both)
    assert len(warned) == 1


def test_a_link_that_is_no_child_may_change():
    target = classify(Teaching)
    ours, usual = evaluators(target)
    with pytest.warns(UserWarning, match="no children"):
        before = assert_same(ours, usual)
    target.predictor.teachers[0].W.array *= 3
    assert assert_same(ours, usual) != before


def test_a_network_that_counts_its_batches_is_never_replayed():
    ours, usual = evaluators(classify(Counting))
    for _ in range(2):
        assert_same(ours, usual)
    assert not replays(ours)


def test_batches_that_are_no_arrays():
    class Lists(chainer.Chain):
        def forward(self, x):
            return F.stack([F.sum(one, (1, 2)) for one in x])

    target = L.Classifier(Lists())

    def converter(batch, device):
        return [x for x, _ in batch], np.stack([t for _, t in batch]) % 3

    ours, usual = evaluators(target, converter=converter)
    with pytest.warns(UserWarning, match="not arrays of numbers"):
        assert_same(ours, usual)


def test_several_links_report():
    ours, usual = evaluators(classify(Reporting))
    for _ in range(2):
        result = assert_same(ours, usual)
    assert "main/predictor/mean" in result and "main/predictor/fc/largest" in result
    assert replays(ours)
    for evaluator in (ours, usual):
        evaluator.name = "test"
    assert "test/main/loss" in assert_same(ours, usual)


def test_updates_of_statistics_in_evaluation():
    target = classify(Updating)
    ours, usual = evaluators(target)
    before = target.predictor.first.avg_mean.copy()
    for _ in range(3):
        assert_same(ours, usual)
    np.testing.assert_array_equal(target.predictor.first.avg_mean, before)
    assert replays(ours)


class UpdatingByOne(Net):
    def forward(self, x):
        with chainer.using_config("train", len(x) == 1):
            self.norm(self.conv(x))
        return super().forward(x)


def test_updates_of_statistics_by_batches_of_another_shape():
    def converter(batch, device):
        x, t = concat_examples(batch)
        return (x[:1], t[:1]) if t[0] % 2 else (x, t)

    ours, usual = evaluators(classify(UpdatingByOne), T, 2, converter=converter)
    for _ in range(3):
        assert_same(ours, usual)
    assert len(replays(ours)) == 2


def test_an_evaluation_whose_end_was_interrupted_leaves_nothing(monkeypatch):
    def interrupted(plan):
        if plan._bound is not None:
            raise KeyboardInterrupt
        unbind(plan)

    unbind = Plan.unbind
    target = classify()
    ours, usual = evaluators(target)
    assert_same(ours, usual)
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(Plan, "unbind", interrupted)
        ours()
    train(target)
    assert_same(ours, usual)


@pytest.mark.parametrize("label_key", ["t", -1, 0])
def test_forms_of_a_batch(label_key):
    target = classify(lossfun=F.softmax_cross_entropy)
    target.label_key = label_key

    def converter(batch, device):
        x, t = (np.stack(values) for values in zip(*batch, strict=True))
        return (
            {"x": x, "t": t}
            if label_key == "t"
            else (t, x)
            if label_key == 0
            else (x, t)
        )

    ours, usual = evaluators(target, converter=converter)
    for _ in range(2):
        assert_same(ours, usual)
    assert replays(ours)


def test_an_eval_func_runs_as_usual():
    target = classify()

    def report(x, t):
        chainer.report({"n": len(x)}, target)

    ours, usual = evaluators(target, eval_func=report)
    assert_same(ours, usual)
    assert not replays(ours)


def test_hooks_and_debug_mode_see_every_function():
    class Count(chainer.FunctionHook):
        called = 0

        def forward_postprocess(self, function, in_data):
            self.called += 1

    class OfLinks(chainer.LinkHook):
        def forward_postprocess(self, args):
            called.append(args.link)

    target = classify()
    ours, usual = evaluators(target)
    ours()
    counts = []
    for evaluator in (ours, usual):
        with Count() as hook:
            evaluator()
        called = []
        with OfLinks():
            evaluator()
        target.predictor.fc.add_hook(OfLinks(), "own")
        evaluator()
        target.predictor.fc.delete_hook("own")
        counts.append((hook.called, *map(called.count, target.links())))
    assert counts[0] == counts[1] and min(counts[0]) == 7
    assert called.count(target.predictor.fc) == 14
    with chainer.using_config("debug", True):
        assert_same(ours, usual)
    assert ours._graphs.reason is None
    assert_same(ours, usual)


def test_a_network_without_shapes_at_first():
    def network():
        return chainer.Sequential(
            L.Convolution2D(None, 16, 3),
            L.BatchNormalization(axis=(0, 2, 3)),
            F.relu,
            L.Linear(None, 5),
        )

    results = []
    for graph in (0, 1):
        np.random.seed(0)
        evaluator = evaluators(L.Classifier(network()))[graph]
        results.append([evaluator() for _ in range(3)])
    assert results[0] == results[1]


def test_a_label_out_of_range_is_an_error_as_usual():
    ours, _ = evaluators(classify())
    ours()
    ours.converter = lambda batch, device: (X[:8], np.full(8, 9, "i"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(IndexError, match="index 9 is out of bounds"):
            ours()


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))]
)
def test_copies_evaluate_alike(copied):
    ours, usual = evaluators(classify())
    ours()
    other, usual = copied((ours, usual))
    train(other.get_target("main"))
    for _ in range(2):
        assert_same(other, usual)
    assert other.get_target("main") is not ours.get_target("main") and replays(other)


def test_between_steps_that_are_replayed():
    logs = []
    for graph in (True, False):
        model = classify(cls=ManifoldMixupClassifier)
        optimizer = chainer.optimizers.MomentumSGD(0.01).setup(model)
        order = SerialIterator(TupleDataset(X, T), 8, shuffle=False)
        updater = GraphUpdater(order, optimizer)
        evaluator = evaluators(model)[0 if graph else 1]
        log = []
        for _ in range(30):
            updater.update()
            if updater.iteration % 6 == 0:
                log.append(evaluator())
        logs.append(log)
    assert logs[0] == logs[1]


def test_without_compiled_loops_an_error_names_the_remedy():
    target = classify()
    chainer_revive.use(cpu="numpy")
    with pytest.raises(ValueError, match=r"install Numba .*CHAINER_MMIX_CPU"):
        evaluators(target)


def test_loops_that_are_switched_off_later_are_not_replayed():
    ours, usual = evaluators(classify())
    ours()
    chainer_revive.use(cpu="chainer")
    assert_same(ours, usual)
    assert ours._graphs.reason is None
