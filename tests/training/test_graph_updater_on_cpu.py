"""GraphUpdater against StandardUpdater on a CPU: the same numbers, bit for bit."""

import copy
import functools
import pickle
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from types import SimpleNamespace

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import iterators
from chainer.datasets import TupleDataset
from chainer.training import Trainer, extensions
from chainer.training.updaters import StandardUpdater

import chainer_revive
from chainer_mmix import (
    ManifoldMixupClassifier,
    MixupLayers,
    MixupPolicy,
    mixup_data,
    models,
)
from chainer_mmix.mixing import Remix
from chainer_mmix.training import GraphUpdater
from chainer_revive.cpu.numba import threads

pytest.importorskip("numba")

pytestmark = pytest.mark.usefixtures("compiled_loops")

random = np.random.RandomState(0)
X = random.standard_normal((44, 3, 8, 8)).astype("f")
T = random.randint(0, 5, 44).astype("i")
ONE_HOT = np.eye(5, dtype="f")[T]


class Net(chainer.Chain):
    """Convolutions of all kinds that have paths of their own, and more."""

    mixup_layers = default_layer_mix = (0, 1, 2)

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.c1 = L.Convolution2D(3, 16, 3, pad=1)
            self.b1 = L.BatchNormalization(16)
            self.c2 = L.Convolution2D(16, 16, 3, pad=1, nobias=True)
            self.b2 = L.BatchNormalization(16, decay=0.5)
            self.short = L.Convolution2D(16, 32, 1, stride=2)
            self.c3 = L.Convolution2D(16, 32, 3, stride=2, pad=1, groups=2)
            self.up = L.Deconvolution2D(32, 8, 2, stride=2)
            self.fc = L.Linear(None, 5)

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        targets = target, target
        h = x
        for point, stage in enumerate((F.identity, self.first, self.second)):
            h = stage(h)
            if mixup_hidden and point == layer_mix:
                h, *targets = mixup_data(h, target, lam)
        y = self.last(h)
        return (y, *targets) if mixup_hidden else y

    def first(self, x):
        h = F.relu(self.b1(self.c1(x)))
        return F.relu(self.b2(self.c2(h)) + h)

    def second(self, h):
        return F.elu(self.c3(h) + self.short(h))

    def last(self, h):
        h = F.average_pooling_2d(F.max_pooling_2d(F.tanh(self.up(h)), 2), 2)
        return self.fc(F.concat((h, 2 * h)))


def classify(net=Net, **options):
    np.random.seed(0)
    if "policy" not in options:
        options["seed"] = 1
    return ManifoldMixupClassifier(net(), **options)


def shuffled(order, position):
    return np.random.RandomState(position).permutation(len(X))


def make(updater, model, optimizer=None, t=T, epoch=9, batchsize=8, **options):
    optimizer = optimizer or chainer.optimizers.MomentumSGD(0.01)
    optimizer.setup(model)
    iterator = iterators.SerialIterator(
        *(TupleDataset(X, t), batchsize),
        order_sampler=shuffled,
    )
    np.random.seed(0)
    updater = updater(iterator, optimizer, **options)
    trainer = Trainer(updater, (epoch, "epoch"))
    log = extensions.LogReport(trigger=(1, "iteration"), filename=None)
    trainer.extend(log)
    return trainer


def run(updater, model, **options):
    trainer = make(updater, model, **options)
    trainer.run()
    return trainer


def numbers(trainer):
    """Returns all that a training leaves behind."""
    model = trainer.updater.get_optimizer("main").target
    found = {}
    for path, param in model.namedparams():
        found[path], found[f"{path}/grad"] = param.array, param.grad
        for name, value in (param.update_rule.state or {}).items():
            found[f"{path}/{name}"] = value
    for path, link in model.namedlinks():
        for name in link._persistent:
            found[f"{path}/{name}"] = getattr(link, name)
    for name in ("y", "loss", "accuracy"):
        found[name] = chainer.as_array(getattr(model, name))
    for entry in trainer.get_extension("LogReport").log:
        for name, value in entry.items():
            if name != "elapsed_time":
                found[f"{name} {entry['iteration']}"] = value
    return found


def assert_same(ours, other):
    ours, other = numbers(ours), numbers(other)
    assert ours.keys() == other.keys()
    for name, value in other.items():
        assert np.asarray(ours[name]).tobytes() == np.asarray(value).tobytes(), name


def both(make_model, **options):
    """Trains in both ways, and compares; returns the replaying one."""
    optimizer = options.pop("optimizer", chainer.optimizers.MomentumSGD)
    ours, other = (
        run(updater, make_model(), optimizer=optimizer(), **options)
        for updater in (GraphUpdater, StandardUpdater)
    )
    assert_same(ours, other)
    return ours.updater


SETTINGS = {
    "batch": {},
    "sample": {"policy": MixupPolicy(0.4, per="sample", seed=1)},
    "pair": {"policy": MixupPolicy(0.4, per="pair", seed=1)},
    "one layer": {"layer_mix": 2},
    "label smoothing": {"label_smoothing": 0.1},
    "clean weight": {"clean_weight": 0.5},
    "no mixing": {"mixup_hidden": False},
    "no accuracy": {"accfun": None},
    "ignored labels": {"lossfun": lambda y, t: F.softmax_cross_entropy(y, t)},
}
LAYERS = {"one layer": 1, "no mixing": 1}


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_training_is_that_of_a_standard_updater(name):
    settings = SETTINGS[name]

    def model():
        return classify(**copy.deepcopy(settings))

    updater = both(model)
    if name == "ignored labels":  # computes with lambda on the host
        assert "on the host" in updater.reason
        return
    assert updater.reason is None
    assert updater.n_graphs == LAYERS.get(name, 3)


@pytest.mark.parametrize(
    "constants", [([0.5], [0.25]), ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]), (None, None)]
)
def test_networks_that_standardise_are_replayed(constants):
    def net():
        net = models.CNN(5, width=8)
        net.standardise(*constants)
        return net

    updater = both(lambda: classify(net))
    assert updater.reason is None
    assert updater.n_graphs == 3


@pytest.mark.parametrize(
    "optimizer",
    [
        chainer.optimizers.SGD,
        lambda: chainer.optimizers.Adam(1e-3),
        lambda: chainer.optimizers.AdamW(1e-3),
        chainer.optimizers.RMSprop,
    ],
)
def test_optimizers_run_as_usual(optimizer):
    assert both(classify, optimizer=optimizer).reason is None


def test_hooks_of_an_optimizer_run_as_usual():
    def trained(updater):
        trainer = make(updater, classify())
        optimizer = trainer.updater.get_optimizer("main")
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.01))
        optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(0.1))
        trainer.run()
        return trainer

    ours = trained(GraphUpdater)
    assert ours.updater.reason is None
    assert_same(ours, trained(StandardUpdater))


class SharpnessAware(chainer.optimizers.MomentumSGD):
    """Computes the gradient again a small step uphill."""

    def update(self, lossfun=None, *args, **kwds):
        if lossfun is not None:
            params = list(self.target.params())
            before = [p.array.copy() for p in params]
            self.compute(lossfun, *args)
            for param in params:
                param.array += 0.01 * param.grad
            self.compute(lossfun, *args)
            for param, array in zip(params, before, strict=True):
                param.array[...] = array
        super().update()

    def compute(self, lossfun, *args):
        loss = lossfun(*args)
        self.target.cleargrads()
        loss.backward()


def accumulating():
    """Returns an optimizer that makes a step every other time."""
    optimizer, pending = chainer.optimizers.SGD(0.01), []

    def update(lossfun=None, *args, **kwds):
        if lossfun is not None:
            if not pending:
                optimizer.target.cleargrads()
            lossfun(*args, **kwds).backward()
        pending.append(None)
        if len(pending) == 2:
            pending.clear()
            type(optimizer).update(optimizer)

    optimizer.update = update
    return optimizer


def initialized():
    with chainer.using_config("train", False):
        model = classify()
        model.predictor(X[:2])
    return model


@pytest.mark.parametrize("optimizer", [SharpnessAware, accumulating])
def test_an_optimizer_that_computes_the_loss_itself_gets_it(optimizer):
    with pytest.warns(UserWarning, match="has an update of its own"):
        both(initialized, optimizer=optimizer)


@pytest.mark.parametrize(
    "network",
    [
        lambda: models.CNN(5, width=16),
        lambda: models.PreActResNet18(5, width=16),
        lambda: models.WideResNet(5, depth=10, width=1),
    ],
)
def test_networks_of_the_package(network):
    assert both(lambda: classify(network), epoch=5).reason is None


@pytest.mark.slow
def test_resnet50():
    assert both(lambda: classify(lambda: models.ResNet50(5)), epoch=4).reason is None


def test_a_network_that_knows_nothing_of_mixing():
    def network():
        net = chainer.Sequential(L.Linear(192, 64), F.relu, L.Linear(64, 5))
        return MixupLayers(net, ["input", "0"])

    assert both(lambda: classify(network)).reason is None


def test_classifiers_of_chainer():
    def model():
        np.random.seed(0)
        return L.Classifier(Net())

    updater = both(model)
    assert updater.reason is None and updater.n_graphs == 1


def squared_error(y, t):
    return F.mean_squared_error(F.softmax(y), t)


def test_soft_targets():
    assert both(lambda: classify(lossfun=squared_error), t=ONE_HOT).reason is None
    with pytest.warns(UserWarning, match="SoftmaxCrossEntropy keeps what it computes"):
        both(classify, t=ONE_HOT)


def test_one_thread_and_another_number_of_them_later(monkeypatch):
    trained = []
    for updater in (GraphUpdater, StandardUpdater):
        trainer = make(updater, classify(layer_mix=1))
        updates = trainer.updater
        monkeypatch.setattr(
            threads, "count", lambda updates=updates: 1 + (updates.iteration > 20)
        )
        trainer.run()
        trained.append(trainer)
    assert trained[0].updater.n_graphs == 2
    assert_same(*trained)


def test_a_snapshot_is_that_of_a_standard_updater(tmp_path):
    whole = run(StandardUpdater, classify())
    ways = GraphUpdater, StandardUpdater
    for first, second in (ways, ways[::-1]):
        half = run(first, classify(), epoch=5)
        chainer.serializers.save_npz(tmp_path / "half.npz", half)
        rest = make(second, classify())
        chainer.serializers.load_npz(tmp_path / "half.npz", rest)
        rest.run()
        for name, value in numbers(whole).items():
            if "/" in name and not name.startswith("main"):
                np.testing.assert_array_equal(numbers(rest)[name], value)


def test_what_is_changed_between_steps_counts():
    trained = []
    for updater in (GraphUpdater, StandardUpdater):
        trainer = make(updater, classify(layer_mix=1), epoch=18)
        model = trainer.updater.get_optimizer("main").target
        net = model.predictor

        @trainer.extend
        def change(trainer, net=net, model=model):
            n = trainer.updater.iteration
            if n == 20:
                net.b1.avg_mean = net.b1.avg_mean + 1  # another array
                net.c1.W.array = net.c1.W.array * 2
            if n == 60:
                model.label_smoothing = 0.2
            if n == 80:
                net.fc = L.Linear(64, 5, initialW=np.full((5, 64), 0.1, "f"))
                chainer.optimizers.MomentumSGD(0.01).setup(model)

        trainer.run()
        trained.append(trainer)
    ours = trained[0].updater
    assert ours.reason is None and ours.n_graphs >= 3
    found, wanted = map(numbers, trained)
    for name, value in wanted.items():
        assert value is None or np.array_equal(found[name], value), name


def test_hooks_and_debug_mode_see_every_function():
    class Count(chainer.FunctionHook):
        called = 0

        def forward_postprocess(self, function, in_data):
            self.called += 1

    counts = []
    for updater in (GraphUpdater, StandardUpdater):
        trainer = run(updater, classify(), epoch=9)
        with Count() as hook:
            trainer.updater.update()
        with chainer.using_config("debug", True):
            trainer.updater.update()
        counts.append(hook.called)
    assert counts[0] == counts[1] > 10


def test_a_classifier_of_a_network_with_two_heads():
    def model():
        np.random.seed(0)
        model = L.Classifier(TwoHeads(), loss_of_two)
        model.compute_accuracy = False
        return model

    trained = []
    for updater in (GraphUpdater, StandardUpdater):
        trained.append(make(updater, model()))
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            trained[-1].run()
        found = trained[-1].updater.get_optimizer("main").target
        assert type(found.y) is tuple
        found.y = None
        if updater is GraphUpdater:
            (warning,) = warned
            assert "y of the classifier is a tuple" in str(warning.message)
    assert_same(*trained)


@pytest.mark.parametrize("make_model", [classify, lambda: L.Classifier(Net())])
def test_names_of_observers_are_those_of_the_reporter(make_model):
    observations = []
    for updater in (GraphUpdater, StandardUpdater):
        np.random.seed(0)
        updates = make(updater, make_model()).updater
        for i in range(30):
            reporter, observation = chainer.Reporter(), {}
            name = "net" if i < 20 else "other"
            reporter.add_observer(name, updates.get_optimizer("main").target)
            if i == 25:
                updates.update()  # where nobody reads what is reported
            with reporter.scope(observation):
                updates.update()
            observations.append(
                {k: float(as_number(v)) for k, v in observation.items()}
            )
        if updater is GraphUpdater:
            assert updates.n_graphs
    assert observations[:30] == observations[30:]
    assert "net/loss" in observations[0]


def as_number(value):
    return getattr(value, "array", value)


class ReportsArrays(Net):
    def first(self, x):
        h = super().first(x)
        chainer.report({"mean": F.mean(h).array, "variable": F.mean(h)})
        return h


def test_what_is_reported_stays_an_array_or_a_variable():
    updates = make(GraphUpdater, classify(ReportsArrays, layer_mix=2)).updater
    for _ in range(6):
        with chainer.Reporter().scope({}), chainer.report_scope(observation := {}):
            chainer.reporter.get_current_reporter().add_observer(
                "main", updates.get_optimizer("main").target
            )
            updates.update()
    assert updates.n_graphs == 1
    assert type(observation["mean"]) is np.ndarray
    assert type(observation["variable"]) is chainer.Variable


class Exponential(chainer.Chain):
    """Adds up all numbers in the order in which they lie in memory."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.factor = chainer.Parameter(np.zeros((), "f"))

    def forward(self, x, t):
        return self.factor * F.sum(F.exp(x))


def test_batches_that_lie_otherwise_in_memory():
    gradients = []
    for updater in (GraphUpdater, StandardUpdater):
        updates = make(updater, Exponential()).updater
        layouts = [np.ascontiguousarray, np.asfortranarray] * 20

        def converter(batch, device, layouts=layouts):
            return layouts.pop(0)(X[:8]), T[:8]

        updates.converter = converter
        found = []
        while layouts:
            updates.update()
            found.append(updates.get_optimizer("main").target.factor.array.copy())
        gradients.append(found)
        if updater is GraphUpdater:
            assert updates.n_graphs
    np.testing.assert_array_equal(*gradients)


def loss_of_two(y, t):
    return F.softmax_cross_entropy(y[0], t) + F.softmax_cross_entropy(y[1], t)


def test_a_network_that_checks_its_weights():
    with pytest.warns(UserWarning, match="other parameters: ValueError: weights are"):
        both(lambda: classify(Checked), optimizer=lambda: chainer.optimizers.SGD(1e-5))


def test_optimizers_of_other_names_are_refused():
    optimizer = chainer.optimizers.SGD().setup(Net())
    iterator = iterators.SerialIterator(TupleDataset(X, T), 8)
    with pytest.raises(ValueError, match=r"called main, .*\['body'\]"):
        GraphUpdater(iterator, {"body": optimizer})


def test_a_label_out_of_range_is_an_error_as_usual():
    trainer = make(GraphUpdater, classify())
    trainer.run()
    assert trainer.updater.n_graphs
    trainer.updater.converter = lambda batch, device: (X[:8], np.full(8, 9, "i"))
    with pytest.raises(ValueError, match="9"):
        trainer.updater.update()


class OwnGradient(chainer.FunctionNode):
    def forward(self, inputs):
        self.retain_inputs((0,))
        return (inputs[0] ** 2,)

    def backward(self, indexes, grad_outputs):
        (x,) = self.get_retained_inputs()
        return (chainer.Variable(2 * x.array * grad_outputs[0].array),)


class WithOwnGradient(Net):
    def last(self, h):
        return super().last(OwnGradient().apply((h,))[0])


class OutsideOfFunctions(Net):
    def last(self, h):
        return super().last(h * np.abs(h.array).max(keepdims=True))


class OwnAverage(Net):
    def __init__(self):
        super().__init__()
        self.add_persistent("average", np.zeros(16, "f"))

    def first(self, x):
        h = super().first(x)
        self.average += h.array.mean((0, 2, 3))
        return h


class Counting(Net):
    def __init__(self):
        super().__init__()
        self.add_persistent("n", 0)

    def first(self, x):
        self.n += 1
        return super().first(x) * self.n


class WithDropout(Net):
    def first(self, x):
        return F.dropout(super().first(x))


class InPlace(Net):
    def forward(self, x, *args, **kwargs):
        x -= 1
        return super().forward(x, *args, **kwargs)


class Centre(Net):
    """Changes an array of its own, then uses it."""

    def __init__(self):
        super().__init__()
        self.centre = np.zeros(16, "f")

    def first(self, x):
        h = super().first(x)
        self.centre *= 0.9
        self.centre += 0.1 * h.array.mean((0, 2, 3))
        return h - F.broadcast_to(self.centre[:, None, None], h.shape)


class OwnStatistics(Net):
    """Keeps statistics for others to read."""

    def __init__(self):
        super().__init__()
        every = np.zeros(2)
        self.largest, self.every = every[:1], every

    def second(self, h):
        self.largest[...] = np.maximum(self.largest, h.array.max())
        return super().second(h)


class Rare(Net):
    """Computes in NumPy what is zero in nearly all batches."""

    def second(self, h):
        return super().second(F.where(h.array > 4, -h, h))


class OwnRandom(Net):
    def __init__(self):
        super().__init__()
        self.generator = np.random.default_rng(0)

    def second(self, h):
        return super().second(h * self.generator.random())


class Keeping(Net):
    """Hands an intermediate result to somebody else."""

    def second(self, h):
        self.h = h
        return super().second(h)


class TwoHeads(Net):
    def forward(self, *args, **kwargs):
        y = super().forward(*args, **kwargs)
        return y, 2 * y


class Checked(Net):
    """Does not compute with weights that are out of bounds."""

    bound = None

    def first(self, x):
        weights = self.c1.W.array
        self.bound = self.bound or 1.01 * abs(weights).max()
        if abs(weights).max() > self.bound:
            raise ValueError("weights are too large")
        return super().first(x)


NOT_KNOWN = "reads an array that no function has computed"


@pytest.mark.parametrize(
    "net, reason",
    [
        (WithOwnGradient, "OwnGradient keeps|OwnGradient computes"),
        (OutsideOfFunctions, NOT_KNOWN),
        (OwnAverage, "not all of its numbers are computed"),
        (WithDropout, "Dropout keeps what it computes, in mask"),
        (InPlace, "it changes its inputs"),
        (Centre, NOT_KNOWN),
        (OwnStatistics, "or arrays that are no persistent values"),
        (Rare, NOT_KNOWN),
        (OwnRandom, "it changes the state of a Generator"),
        (Keeping, "it changes h of Keeping"),
    ],
)
def test_what_cannot_be_replayed_is_said_once_and_runs_as_usual(net, reason):
    with pytest.warns(UserWarning, match=reason) as warned:
        ours = run(GraphUpdater, classify(net))
    assert len(warned) == 1
    assert ours.updater.reason is not None
    assert_same(ours, run(StandardUpdater, classify(net)))


class Centres(chainer.Chain):
    """A criterion with parameters."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.centres = chainer.Parameter(np.zeros((5, 5), "f"))

    def forward(self, y, t):
        distance = F.mean_squared_error(y, F.embed_id(t, self.centres))
        return F.softmax_cross_entropy(y, t) + distance


CENTRES = Centres()


def global_centres(y, t):
    return CENTRES(y, t)


@pytest.mark.parametrize("is_global", [False, True])
def test_gradients_of_parameters_that_the_optimizer_has_not(is_global):
    gradients = []
    for updater in (GraphUpdater, StandardUpdater):
        np.random.seed(0)
        centres = CENTRES if is_global else Centres()
        centres.cleargrads()
        model = L.Classifier(Net(), global_centres if is_global else centres)
        updates = make(updater, model).updater
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for _ in range(9):
                updates.update()
        if updater is GraphUpdater:
            (warning,) = warned
            assert "gradient of centres, of shape (5, 5)" in str(warning.message)
        gradients.append(centres.centres.grad)
    np.testing.assert_array_equal(*gradients)


class Holder:
    pass


HOLDER = Holder()


def of_a_closure():
    generator = np.random.default_rng(0)
    return lambda: generator.random()


def of_an_object():
    holder = Holder()
    holder.generators = [np.random.RandomState(0)]
    return functools.partial(draw_of, holder)


def draw_of(holder):
    return holder.generators[0].rand()


def of_a_global_variable():
    HOLDER.generators = [np.random.default_rng(0)]
    return lambda: HOLDER.generators[0].random()


def of_a_class():
    class Drawing(chainer.FunctionNode):
        generator = np.random.default_rng(0)

    return lambda: Drawing.generator.random()


class StochasticDepth(Net):
    """Leaves out a layer now and then."""

    draw = None

    def second(self, h):
        return super().second(F.relu(h) if self.draw() < 0.9 else h)


@pytest.mark.parametrize(
    "make_draw", [of_a_closure, of_an_object, of_a_global_variable, of_a_class]
)
def test_generators_that_no_link_has_are_found(make_draw):
    def model():
        model = classify(StochasticDepth)
        model.predictor.draw = make_draw()
        return model

    with pytest.warns(UserWarning, match="draws random numbers"):
        both(model)


def test_of_a_network_that_counts_its_steps_it_is_said_that_none_is_replayed(
    monkeypatch,
):
    monkeypatch.setattr("chainer_mmix.training.graph_updater.MANY", 3)
    with pytest.warns(UserWarning, match="changes in each step") as warned:
        updater = both(lambda: classify(Counting))
    assert len(warned) == 1 and not updater.n_graphs


class Hidden(Net):
    """Has batch normalisation that no link knows of."""

    def __init__(self):
        super().__init__()
        self.hidden = [L.BatchNormalization(16)]

    def second(self, h):
        return super().second(self.hidden[0](h))


class WithTable(Net):
    def __init__(self):
        super().__init__()
        self.table = np.broadcast_to(np.float32(1), 3)


def test_arrays_that_cannot_be_written_to():
    assert both(lambda: classify(WithTable)).reason is None


def test_running_averages_of_links_in_lists():
    averages = []
    for updater in (GraphUpdater, StandardUpdater):
        model = classify(Hidden)
        trainer = run(updater, model)
        (bn,) = model.predictor.hidden
        averages += [bn.avg_mean, bn.avg_var]
    assert trainer.updater.iteration > 40
    np.testing.assert_array_equal(averages[0], averages[2])
    np.testing.assert_array_equal(averages[1], averages[3])


def decay(model):
    model.predictor.b1.decay = 0.2


def eps(model):
    model.predictor.b1.eps = 0.1


def scale(model):
    model.predictor.scale = 0.5


def activation(model):
    model.predictor.activation = F.sigmoid


def persistent(model):
    model.predictor.temperature = 0.3


def configuration(model):
    chainer.config.own_scale = 3.0


def hook(model):
    model.predictor.c2.add_hook(chainer.link_hooks.WeightStandardization())


def loss(model):
    model.lossfun = lambda y, t: 2 * F.softmax_cross_entropy(y, t)


class Identity(chainer.Link):
    def forward(self, h):
        return h


class Negative(chainer.Link):
    def forward(self, h):
        return -h


def another_child(model):
    model.predictor.chosen = model.predictor.negative


def child(model):
    del model.predictor.child
    with model.predictor.init_scope():
        model.predictor.child = Negative()


def kind_of_list(model):
    model.predictor.factors = (1, 1)


def mapping(model):
    model.predictor.kept = types.MappingProxyType({"factor": 2})


def mask(model):
    model.predictor.mask[-1] = False


def decimal(model):
    model.predictor.precise = Decimal(2)


class Adjustable(Net):
    scale, activation = 1.0, staticmethod(F.relu)

    def __init__(self):
        super().__init__()
        self.scale, self.activation = 1.0, F.relu
        self.factors, self.kept = [1, 1], types.MappingProxyType({"factor": 1})
        self.mask = np.ones(20, bool)
        self.precise = Decimal(1)
        self.add_persistent("temperature", 1.0)
        with self.init_scope():
            self.child = Identity()
            self.negative = Negative()
        self.chosen = self.child

    def second(self, h):
        factor = self.scale * self.temperature * getattr(chainer.config, "own_scale", 1)
        factor *= 2.0 if type(self.factors) is tuple else 1.0
        factor *= self.kept["factor"] * float(self.precise) * (2 - int(self.mask[-1]))
        h = self.chosen(self.child(self.activation(h) * factor))
        return super().second(h)


@pytest.mark.parametrize(
    "change",
    [
        *(decay, eps, scale, activation, persistent, configuration, hook, loss, child),
        *(another_child, kind_of_list, mapping, mask, decimal),
    ],
)
@pytest.mark.parametrize("classifier", [classify, lambda net: L.Classifier(net())])
def test_what_a_user_sets_between_steps_counts(change, classifier):
    trained = []
    for updater in (GraphUpdater, StandardUpdater):
        np.random.seed(0)
        model = classifier(Adjustable)
        trainer = make(updater, model)

        @trainer.extend
        def set_once(trainer, model=model):
            if trainer.updater.iteration == 30:
                change(model)

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what cannot be captured
                trainer.run()
        finally:
            vars(chainer.config._local).pop("own_scale", None)
        trained.append(trainer)
    assert_same(*trained)


class Weighted:
    def __init__(self, net):
        self.net, self.weight = net, 1.0

    def __call__(self, x, t):
        return self.weight * F.softmax_cross_entropy(self.net(x), t)

    def change(self):
        self.weight = 2.0


def weighted_by_a_closure(net):
    weights = [1.0]

    def loss(x, t):
        return weights[0] * F.softmax_cross_entropy(net(x), t)

    loss.change = lambda: weights.append(weights.pop() + 1)
    return loss


@pytest.mark.parametrize("make_loss", [Weighted, weighted_by_a_closure])
def test_what_a_user_sets_of_a_loss_function_counts(make_loss):
    trained = []
    for updater in (GraphUpdater, StandardUpdater):
        np.random.seed(0)
        net = Net()
        loss = make_loss(net)
        trainer = make(updater, net, epoch=3, loss_func=loss)
        for i in range(12):
            if i == 8:
                loss.change()
            trainer.updater.update()
        trained.append((net, trainer.updater))
    (own, ours), (other, _) = trained
    assert ours.n_graphs == 2
    for param, wanted in zip(own.params(), other.params(), strict=True):
        np.testing.assert_array_equal(param.array, wanted.array)


def test_arrays_that_a_user_replaced_are_left_alone():
    best = []
    trained = []
    for updater in (GraphUpdater, StandardUpdater):
        trainer = make(updater, classify(layer_mix=1))
        net = trainer.updater.get_optimizer("main").target.predictor

        @trainer.extend
        def replace(trainer, net=net):
            if trainer.updater.iteration == 20:
                best.append(net.c1.W.array)
                net.c1.W.array = net.c1.W.array.copy()

        trainer.run()
        trained.append(trainer)
    np.testing.assert_array_equal(*best)
    assert_same(*trained)


def test_threads_have_memory_of_their_own():
    """Each trainer is moved from thread to thread."""
    trainers = []
    for _ in range(3):
        trainers.append(make(GraphUpdater, classify()))
        trainers[-1].updater.update()  # and has its parameters

    def go(trainer):
        for _ in range(5):
            trainer.updater.update()

    with ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            list(pool.map(go, trainers))
    wanted = make(StandardUpdater, classify()).updater
    while wanted.iteration < 51:
        wanted.update()
    expected = wanted.get_optimizer("main").target
    for trainer in trainers:
        found = trainer.updater.get_optimizer("main").target
        for own, other in zip(found.params(), expected.params(), strict=True):
            np.testing.assert_array_equal(own.array, other.array)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda updater: pickle.loads(pickle.dumps(updater))]
)
def test_copies_of_an_updater_train_alike(copied):
    trained = []
    for updater in (GraphUpdater, StandardUpdater):
        trainer = run(updater, classify(), epoch=5)
        second = copied(trainer.updater)
        for _ in range(30):
            second.update()
        trained.append(second.get_optimizer("main").target)
    assert second is not trainer.updater
    for own, other in zip(*[model.params() for model in trained], strict=True):
        np.testing.assert_array_equal(own.array, other.array)


def test_a_first_batch_that_is_smaller_than_others():
    trainer = make(GraphUpdater, classify(), epoch=1)
    batches = [(X[:3], T[:3])] * 2 + [(X[:8], T[:8])] * 20
    trainer.updater.converter = lambda batch, device: batches.pop(0)
    while batches:
        trainer.updater.update()
    assert trainer.updater.n_graphs


def test_remix_computes_with_lambda_on_the_host():
    def model():
        return classify(remix=Remix([5, 10, 5, 20, 4]))

    with pytest.warns(UserWarning, match="cannot be captured"):
        both(model)


def test_without_compiled_loops_an_error_names_the_remedy():
    chainer_revive.use(cpu="numpy")
    with pytest.raises(ValueError, match=r"install Numba .*CHAINER_MMIX_CPU"):
        make(GraphUpdater, classify())


def test_no_warm_up_is_refused():
    with pytest.raises(ValueError, match="n_warmup must be a whole number >= 1, not 0"):
        make(GraphUpdater, classify(), n_warmup=0)


def test_ranks_on_gpus_are_refused():
    optimizer = SimpleNamespace(
        communicator=object(), target=SimpleNamespace(device="@cupy:0")
    )
    iterator = iterators.SerialIterator(TupleDataset(X, T), 8)
    with pytest.raises(ValueError, match="on @cupy:0: use StandardUpdater there"):
        GraphUpdater(iterator, optimizer)


def test_loops_that_are_switched_off_later_are_not_replayed():
    trainer = make(GraphUpdater, classify(), epoch=9)
    trainer.run()
    chainer_revive.use(cpu="chainer")
    trainer.updater.update()
    assert trainer.updater.reason is None


def test_a_function_that_comes_where_another_one_was_is_another_one():
    """Python gives an ``id`` again once its object is gone."""
    trained = []
    for updater in (GraphUpdater, StandardUpdater):
        trainer = make(updater, classify(mixup_hidden=False), epoch=30)
        model = trainer.updater.get_optimizer("main").target

        @trainer.extend
        def change(trainer, model=model):
            n = trainer.updater.iteration
            if n % 20 == 0:
                model.lossfun = None
                model.lossfun = functools.partial(scaled_loss, factor=n // 20)

        trainer.run()
        trained.append(trainer)
    assert trained[0].updater.n_graphs > 3
    assert_same(*trained)


def scaled_loss(y, t, factor):
    return F.softmax_cross_entropy(y, t) * factor
