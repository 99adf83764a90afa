"""GraphUpdater against StandardUpdater, with a double in place of CUDA graphs."""

import contextlib
import copy
import threading
import warnings

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import iterators
from chainer.datasets import TupleDataset
from chainer.training import Trainer, extensions
from chainer.training.updaters import StandardUpdater

from chainer_mmix import ManifoldMixupClassifier, MixupPolicy, current_draw, mixup_data
from chainer_mmix.mixing import Remix, softmax_binary_cross_entropy
from chainer_mmix.training import DeviceBatches, GraphUpdater
from chainer_mmix.training.extensions import MixupReport
from chainer_revive import registry


class Recorder:
    """Captures functions on NumPy arrays, as CUDA graphs behave.

    To capture runs the function and undoes what it does to arrays. To replay runs it
    again, with all it returns in the arrays of the first time.
    """

    def __init__(self, model):
        self.model = model
        self.inside = False
        self.captured = 0
        self.replayed = []

    @contextlib.contextmanager
    def stream(self):
        assert not self.inside
        self.inside = True
        yield
        self.inside = False

    keeps_arrays = True

    def setting(self, function=None):
        return ()

    def free(self):
        pass

    def arrays(self):
        for link in self.model.links():
            for name in (*link._params, *link._persistent):
                value = getattr(link, name)
                value = getattr(value, "array", value)
                if isinstance(value, np.ndarray):
                    yield value

    def capture(self, function, inputs):
        assert self.inside
        arrays = list(self.arrays())
        before = [array.copy() for array in arrays]
        try:
            first = function()
        finally:
            for array, values in zip(arrays, before, strict=True):
                array[...] = values
        number = self.captured
        self.captured += 1

        def replay():
            self.replayed.append(number)
            second = function()
            for own, new in zip(leaves(first), leaves(second), strict=True):
                if isinstance(own, np.ndarray):
                    own[...] = new
            return first

        return replay


def leaves(computed):
    return [
        *(value for _, value in computed.values.values()),
        *computed.attributes.values(),
        *computed.grads,
    ]


class Net(chainer.Chain):
    mixup_layers = (0, 1, 2)

    def __init__(self, dropout=0.0, dtype=None):
        super().__init__()
        random = np.random.RandomState(0)

        def weight(*shape):
            return random.standard_normal(shape).astype(np.float32)

        with self.init_scope():
            self.l1 = L.Linear(4, 6, initialW=weight(6, 4))
            self.bn = L.BatchNormalization(6)
            self.l2 = L.Linear(6, 5, initialW=weight(5, 6))
            self.l3 = L.Linear(5, 3, initialW=weight(3, 5))
            self.unused = L.Linear(5, 3, initialW=weight(3, 5))
        self.dropout = dropout

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        targets = target, target
        h = x
        for point, stage in enumerate((F.identity, self._stage1, self._stage2)):
            h = stage(h)
            if mixup_hidden and point == layer_mix:
                h, *targets = mixup_data(h, target, lam)
        y = self.l3(h)
        return (y, *targets) if mixup_hidden else y

    def _stage1(self, x):
        h = F.relu(self.bn(self.l1(x)))
        return F.dropout(h, self.dropout) if self.dropout else h

    def _stage2(self, x):
        return F.relu(self.l2(x))


random = np.random.RandomState(1)
X = random.standard_normal((44, 4)).astype("f")
T = (X @ random.standard_normal((4, 3))).argmax(axis=1).astype("i")


def classify(policy=None, **kwargs):
    net = kwargs.pop("net", Net)()
    policy = MixupPolicy(**{"alpha": 1.0, "seed": 3, **(policy or {})})
    return ManifoldMixupClassifier(net, policy=policy, **kwargs)


def make(
    updater,
    model,
    optimizer=None,
    prepare=None,
    repeat=True,
    epoch=5,
    data=None,
    **kwargs,
):
    """Makes a Trainer; the double is its ``graphs``."""
    np.random.seed(0)
    optimizer = (optimizer or chainer.optimizers.MomentumSGD)(0.05).setup(model)
    if prepare:
        prepare(optimizer)
    iterator = iterators.SerialIterator(data or TupleDataset(X, T), 10, repeat=repeat)
    graphs = Recorder(model)
    if updater is GraphUpdater:
        kwargs = {"n_warmup": 2, "graphs": graphs, **kwargs}
    trainer = Trainer(
        updater(iterator, optimizer, **kwargs), (epoch, "epoch"), "unused"
    )
    trainer.graphs = graphs
    trainer.seen = []

    @chainer.training.make_extension(trigger=(1, "iteration"), priority=300)
    def watch(trainer):
        draw = getattr(model, "draw", None)
        mixed = draw and (draw.layer_mix, draw.lam, draw.perm, draw.center)
        trainer.seen.append((dict(trainer.observation), copy.deepcopy(mixed)))

    trainer.extend(watch, name="watch")
    return trainer


def state(trainer):
    saved = chainer.serializers.npz.serialize(trainer.updater)
    return {key: np.array(value) for key, value in saved.items()}


def run(*args, **kwargs):
    trainer = make(*args, **kwargs)
    with contextlib.suppress(StopIteration):
        trainer.run(show_loop_exception_msg=False)
    return trainer


def assert_same(a, b):
    """Compares all that was reported and all that a snapshot holds, to the bit."""
    assert len(a.seen) == len(b.seen)
    for (values, draw), (wanted, wanted_draw) in zip(a.seen, b.seen, strict=True):
        assert values.keys() == wanted.keys()
        for name, value in values.items():
            assert type(value) is type(wanted[name])
            value, other = map(chainer.as_array, (value, wanted[name]))
            assert np.asarray(value).dtype == np.asarray(other).dtype
            np.testing.assert_array_equal(value, other, err_msg=name)
        assert (draw is None) == (wanted_draw is None)
        for own, other in zip(draw or (), wanted_draw or (), strict=True):
            np.testing.assert_array_equal(own, other)
    saved, wanted = state(a), state(b)
    assert saved.keys() == wanted.keys()
    for key, value in saved.items():
        np.testing.assert_array_equal(value, wanted[key], err_msg=key)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


CASES = {
    "batch": {},
    "pair": {"policy": {"per": "pair"}},
    "sample": {"policy": {"per": "sample", "fold": True}},
    "sometimes": {"policy": {"prob": 0.5}},
    "never": {"policy": {"alpha": 0.0}},
    "one layer": {"policy": {"layer_mix": 1}},
    "smooth": {"label_smoothing": 0.1},
    "bce": {"lossfun": softmax_binary_cross_entropy},
    "no accuracy": {"accfun": None},
    "clean": {"clean_weight": 0.5, "top_k": 2},
    "some samples": {"policy": {"per": "sample", "prob": 0.7}},
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_a_training_is_that_of_a_standard_updater(settings):
    ours = run(GraphUpdater, classify(**settings))
    assert_same(ours, run(StandardUpdater, classify(**settings)))
    assert ours.updater.reason is None
    n_graph = {"never": 1, "one layer": 1, "sometimes": 4}
    name = next(name for name, value in CASES.items() if value is settings)
    assert ours.graphs.captured == n_graph.get(name, 3)
    n_step = ours.updater.iteration
    assert len(ours.graphs.replayed) == n_step - 2 * ours.graphs.captured


@pytest.mark.parametrize(
    "optimizer", [chainer.optimizers.Adam, chainer.optimizers.NesterovAG]
)
def test_hooks_and_schedules_are_outside_of_the_graphs(optimizer):
    def prepare(optimizer):
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.01))
        optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(0.5))

    trainers = []
    for updater in (GraphUpdater, StandardUpdater):
        trainer = make(updater, classify(), optimizer, prepare)
        rate = "alpha" if optimizer is chainer.optimizers.Adam else "lr"
        trainer.extend(extensions.ExponentialShift(rate, 0.5), trigger=(1, "epoch"))
        trainer.run()
        trainers.append(trainer)
    assert_same(*trainers)
    assert trainers[0].graphs.replayed


@pytest.mark.parametrize("scale", [None, 8.0])
def test_loss_scaling(scale):
    def prepare(optimizer):
        optimizer.loss_scaling(interval=5, scale=scale)

    trainers = [
        run(updater, classify(), prepare=prepare)
        for updater in (GraphUpdater, StandardUpdater)
    ]
    assert_same(*trainers)
    optimizers = [trainer.updater.get_optimizer("main") for trainer in trainers]
    assert optimizers[0]._loss_scale == optimizers[1]._loss_scale > 1
    assert trainers[0].graphs.replayed


def test_mixed_precision_with_chainers_update_which_replaces_the_parameters():
    class Half(Net):
        def __init__(self):
            with chainer.using_config("dtype", chainer.mixed16):
                super().__init__()

        def forward(self, x, *args, **kwargs):
            return super().forward(x.astype(np.float16), *args, **kwargs)

    trainers = [
        run(
            updater,
            classify(net=Half),
            prepare=lambda optimizer: optimizer.use_fp32_update(),
        )
        for updater in (GraphUpdater, StandardUpdater)
    ]
    assert trainers[0].updater.get_optimizer("main").target.predictor.l1.W.dtype == "e"
    assert_same(*trainers)
    assert trainers[0].graphs.replayed


def test_a_smaller_batch_runs_as_usual():
    trainers = []
    for updater in (GraphUpdater, StandardUpdater):
        model = classify({"layer_mix": 1})
        trainer = make(updater, model, repeat=False, epoch=1)
        iterator = trainer.updater.get_iterator("main")
        for _ in range(5):
            iterator.reset()
            while iterator.epoch == 0:
                trainer.updater.update()
        trainers.append(trainer)
    assert_same(*trainers)
    # Four batches of ten and one of four, five times; two of ten to warm up.
    assert len(trainers[0].graphs.replayed) == 5 * 4 - 2


def test_cutmix_runs_as_usual():
    class Maps(Net):
        def forward(self, x, *args, **kwargs):
            maps = F.tile(F.reshape(x, (-1, 4, 1, 1)), (1, 1, 3, 3))
            outputs = Net.forward(self, maps, *args, **kwargs)
            return outputs

        def _stage1(self, x):
            return super()._stage1(F.mean(x, axis=(2, 3)))

    settings = {"policy": {"cutmix_alpha": 1.0, "layer_mix": 0}, "net": Maps}
    ours = run(GraphUpdater, classify(**settings))
    assert_same(ours, run(StandardUpdater, classify(**settings)))
    assert ours.graphs.captured == 1
    n_mixup = sum(draw[-1] is None for _, draw in ours.seen)
    assert len(ours.graphs.replayed) == n_mixup - 2 < ours.updater.iteration - 4


def test_remix_runs_as_usual():
    settings = {"remix": Remix([9, 3, 1])}
    with pytest.warns(UserWarning, match="Remix needs lambda on the host"):
        ours = run(GraphUpdater, classify(**settings))
    assert_same(ours, run(StandardUpdater, classify(**settings)))


class RandomNet(Net):
    def __init__(self):
        super().__init__(dropout=0.5)


class Fickle(Net):
    """Reports a number that it computes on the host."""

    def forward(self, x, *args, **kwargs):
        if kwargs.get("mixup_hidden"):
            chainer.report({"norm": float(np.abs(x).sum())}, self)
        return super().forward(x, *args, **kwargs)


class Looking(Net):
    """Looks at lambda."""

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        assert not mixup_hidden or float(np.max(lam)) >= 0
        return super().forward(x, target, mixup_hidden, lam, layer_mix)


class Penalised(ManifoldMixupClassifier):
    def forward(self, *args):
        return super().forward(*args) + 0.01 * F.sum(self.predictor.l1.W**2)


def test_a_classifier_with_a_forward_of_its_own_runs_as_usual():
    def make():
        return Penalised(Net(), mixup_alpha=1, seed=3)

    with pytest.warns(UserWarning, match="Penalised has a forward of its own"):
        ours = run(GraphUpdater, make())
    assert_same(ours, run(StandardUpdater, make()))


def test_a_loss_function_that_calls_a_classifier_runs_as_usual():
    def trained(updater):
        model = classify()
        return run(updater, model, loss_func=lambda x, t: 2 * model(x, t))

    with pytest.warns(UserWarning, match="by a classifier in it"):
        ours = trained(GraphUpdater)
    assert_same(ours, trained(StandardUpdater))


class Joins(Net):
    """Needs the partners of the step."""

    def _stage2(self, x):
        draw = current_draw()
        if draw is not None:
            x = x + F.get_item(x, draw.perm)
        return super()._stage2(x)


def test_the_draw_of_the_running_pass_is_that_of_the_step():
    ours = run(GraphUpdater, classify(net=Joins))
    assert len(ours.graphs.replayed) > 10
    assert_same(ours, run(StandardUpdater, classify(net=Joins)))


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"net": RandomNet}, "draws random numbers"),
        ({"net": Fickle}, "main/predictor/norm is reported as a number of the host"),
        ({"net": Looking}, "TypeError"),
        ({"lossfun": lambda y, t: F.softmax_cross_entropy(y, t)}, "on the host"),
    ],
)
def test_what_cannot_be_captured_is_said_once_and_runs_as_usual(settings, reason):
    with pytest.warns(UserWarning, match=reason) as warned:
        ours = run(GraphUpdater, classify(**settings))
    assert len(warned) == 1 and "all steps run as usual" in str(warned[0].message)
    assert reason in ours.updater.reason
    assert ours.graphs.replayed == []
    assert_same(ours, run(StandardUpdater, classify(**settings)))


def test_a_gpu_that_replays_graphs_wrong_has_none():
    registry.leave_off({"graphs"})
    try:
        with pytest.warns(UserWarning, match="leaves graphs off"):
            ours = run(GraphUpdater, classify())
    finally:
        registry.leave_off(())
    assert ours.graphs.captured == 0
    assert_same(ours, run(StandardUpdater, classify()))


def test_a_failing_capture_undoes_its_draws_beside_other_threads():
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.warns(UserWarning, match="draws random numbers"):
            ours = run(GraphUpdater, classify(net=RandomNet))
    finally:
        done.set()
        thread.join()
    assert_same(ours, run(StandardUpdater, classify(net=RandomNet)))


def test_a_failing_capture_leaves_no_trace():
    trainer = make(GraphUpdater, classify())
    model = trainer.updater.get_optimizer("main").target
    own = Recorder(model)
    capture = own.capture

    def fail_at_the_second(function, inputs):
        replay = capture(function, inputs)
        if own.captured == 2:
            raise RuntimeError("operation not permitted when stream is capturing")
        return replay

    own.capture = fail_at_the_second
    trainer.updater._graphs = own
    with pytest.warns(UserWarning, match="not permitted") as warned:
        trainer.run()
    assert len(warned) == 1
    assert_same(trainer, run(StandardUpdater, classify()))


def test_inputs_that_are_no_arrays():
    def convert(batch, device):
        x, t = zip(*batch, strict=True)
        return [np.stack(x)], np.array(t)

    class List(Net):
        def forward(self, x, *args, **kwargs):
            return super().forward(x[0], *args, **kwargs)

    with pytest.warns(UserWarning, match="are not arrays"):
        ours = run(GraphUpdater, classify(net=List), converter=convert)
    assert_same(ours, run(StandardUpdater, classify(net=List), converter=convert))


def test_inputs_by_name():
    def convert(batch, device):
        x, t = zip(*batch, strict=True)
        return {"x": np.stack(x), "target": np.array(t)}

    settings = {"label_key": "target"}
    ours = run(GraphUpdater, classify(**settings), converter=convert)
    assert ours.graphs.captured == 3
    assert_same(ours, run(StandardUpdater, classify(**settings), converter=convert))


def test_data_on_the_device():
    batches = DeviceBatches(TupleDataset(X, T), "@numpy")
    ours = run(GraphUpdater, classify(), data=batches.indices, converter=batches)
    assert ours.graphs.captured == 3
    assert_same(ours, run(StandardUpdater, classify()))


def test_a_classifier_of_chainer_has_one_graph():
    ours = run(GraphUpdater, L.Classifier(Net()))
    assert ours.graphs.captured == 1
    assert_same(ours, run(StandardUpdater, L.Classifier(Net())))


def test_a_loss_function():
    def trained(updater):
        net = Net()

        def loss(x, t):
            return F.softmax_cross_entropy(net(x), t)

        return run(updater, net, loss_func=loss)

    ours = trained(GraphUpdater)
    assert ours.graphs.captured == 1
    assert_same(ours, trained(StandardUpdater))


def test_a_run_without_a_trainer():
    trainers = []
    for updater in (GraphUpdater, StandardUpdater):
        trainers.append(make(updater, classify()))
        for _ in range(20):
            trainers[-1].updater.update()
    assert_same(*trainers)
    assert trainers[0].graphs.captured


@pytest.mark.parametrize("first", [GraphUpdater, StandardUpdater])
def test_snapshots_are_interchangeable(first, tmp_path):
    path = tmp_path / "snapshot.npz"
    half = run(first, classify(), epoch=4)
    chainer.serializers.save_npz(path, half.updater)
    second = {GraphUpdater: StandardUpdater, StandardUpdater: GraphUpdater}[first]
    rest = make(second, classify())
    chainer.serializers.load_npz(path, rest.updater)
    np.random.seed(5)
    while rest.updater.epoch < 8:
        rest.updater.update()
    whole = make(StandardUpdater, classify())
    chainer.serializers.load_npz(path, whole.updater)
    np.random.seed(5)
    while whole.updater.epoch < 8:
        whole.updater.update()
    assert_same(rest, whole)
    assert (rest if second is GraphUpdater else half).graphs.replayed


def test_weights_that_are_loaded_meanwhile_are_used(tmp_path):
    trainers = []
    for updater in (GraphUpdater, StandardUpdater):
        trainer = make(updater, classify())
        model = trainer.updater.get_optimizer("main").target
        for step in range(30):
            if step == 20:
                model.predictor.l1.W.array = np.full((6, 4), 0.1, "f")
            trainer.updater.update()
        trainers.append(trainer)
    assert_same(*trainers)


def test_mixup_report_sees_each_draw(tmp_path):
    logs = []
    for updater in (GraphUpdater, StandardUpdater):
        trainer = make(updater, classify())
        trainer.out = str(tmp_path / updater.__name__)
        trainer.extend(MixupReport())
        trainer.extend(extensions.LogReport())
        trainer.run()
        log = trainer.get_extension("LogReport").log
        logs.append([{k: v for k, v in e.items() if k != "elapsed_time"} for e in log])
    assert logs[0] == logs[1]


@pytest.mark.gpu
def test_on_a_gpu():
    trained = []
    for updater in (GraphUpdater, StandardUpdater):
        options = {"graphs": None} if updater is GraphUpdater else {}
        trained.append(run(updater, classify(), device="@cupy:0", epoch=10, **options))
    ours, standard = trained
    assert ours.updater.reason is None and ours.updater.n_graphs == 3
    saved, wanted = state(ours), state(standard)
    for key, value in saved.items():
        np.testing.assert_allclose(value, wanted[key], 1e-4, 1e-5, err_msg=key)
