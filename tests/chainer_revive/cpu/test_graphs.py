"""What is recorded outside of training, and done again with other numbers."""

import enum
import weakref
from collections import deque
from fractions import Fraction
from types import SimpleNamespace

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_revive.cpu import heap
from chainer_revive.cpu.graphs import CpuGraphs
from chainer_revive.cpu.recording import Plan
from chainer_revive.cpu.steps import CannotReplayError

pytest.importorskip("numba")

pytestmark = pytest.mark.usefixtures("compiled_loops")


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(3, 16, 3, pad=1)
            self.norm = L.BatchNormalization(16, eps=1e-3)
            self.first = L.BatchNormalization(3)

    def forward(self, x):
        return F.relu(self.norm(self.conv(self.first(x))))


def shake(net, random):
    for link in (net.norm, net.first):
        for array in (link.gamma.array, link.beta.array, link.avg_mean):
            array[:] = random.standard_normal(array.shape)
        link.avg_var[:] = random.uniform(0.1, 3, link.avg_var.shape)


def test_an_evaluation_is_done_again_with_other_statistics():
    random = np.random.RandomState(0)
    net, x = Net(), random.standard_normal((4, 3, 8, 8)).astype("f")
    graphs = CpuGraphs(lambda every=False: [net])
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        replay = graphs.capture(lambda: net(x).array, [x])
        for _ in range(4):
            shake(net, random)
            x[:] = random.standard_normal(x.shape)
            assert replay().tobytes() == net(x).array.tobytes()


def test_fixed_parameters_may_change_after_memory_is_freed():
    random = np.random.RandomState(0)
    net = Net()
    batches = [random.standard_normal((n, 3, 8, 8)).astype("f") for n in (2, 4)]
    graphs = CpuGraphs(lambda every=False: [net], fixed=True)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        replays = [
            graphs.capture(lambda x=x: net(x).array, [x]) for x in batches for _ in "12"
        ]
        for _ in range(6):
            shake(net, random)
            net.conv.W.array[:] = random.standard_normal(net.conv.W.shape)
            # Each replay is proved with other parameters first.
            for replay, x in zip(
                replays, (a for a in batches for _ in "12"), strict=True
            ):
                x[:] = random.standard_normal(x.shape)
                assert replay().tobytes() == net(x).array.tobytes()
            graphs.free()


def test_fixed_parameters_are_read_once_for_all_replays():
    net, x = Net(), np.ones((2, 3, 8, 8), "f")
    graphs = CpuGraphs(lambda every=False: [net], fixed=True)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        replay = graphs.capture(lambda: net(x).array, [x])
        wanted = [replay().copy() for _ in range(3)][-1]
        net.conv.W.array[:] = np.nan
        np.testing.assert_array_equal(replay(), wanted)
        graphs.free()
        assert np.isnan(replay()).all()


def test_statistics_are_never_fixed():
    random = np.random.RandomState(0)
    net, x = Net(), random.standard_normal((2, 3, 8, 8)).astype("f")
    graphs = CpuGraphs(lambda every=False: [net], fixed=True)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        replay = graphs.capture(lambda: net(x).array, [x])
        for _ in range(4):
            net.norm.avg_mean[:] = random.standard_normal(16)
            net.first.avg_var[:] = random.uniform(0.1, 3, 3)
            assert replay().tobytes() == net(x).array.tobytes()


def test_a_comparison_that_is_interrupted_leaves_nothing_to_others(monkeypatch):
    net = Net()
    batches = [np.ones((n, 3, 8, 8), "f") for n in (2, 4)]
    graphs = CpuGraphs(lambda every=False: [net], fixed=True)
    run = Plan.run

    def interrupted(*args):
        run(*args)
        raise KeyboardInterrupt

    with chainer.using_config("train", False), chainer.no_backprop_mode():
        first, second = [graphs.capture(lambda x=x: net(x).array, [x]) for x in batches]
        wanted = [first().copy() for _ in range(3)][-1]
        second()
        with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
            m.setattr(Plan, "run", interrupted)  # in the second comparison
            second()
        np.testing.assert_array_equal(first(), wanted)
        assert second().tobytes() == net(batches[1]).array.tobytes()


def test_arrays_that_take_the_place_of_fixed_ones_are_read():
    net, x = Net(), np.ones((2, 3, 8, 8), "f")
    graphs = CpuGraphs(lambda every=False: [net], fixed=True)

    def replay():
        return graphs.capture(lambda: net(x).array, [x])()

    with chainer.using_config("train", False), chainer.no_backprop_mode():
        setting = graphs.setting()
        for factor in (1, 2, 3):
            net.conv.W.array = net.conv.W.array * factor
            assert graphs.setting() != setting
            assert replay().tobytes() == net(x).array.tobytes()
            setting = graphs.setting()


class Colour(enum.Enum):
    RED, BLUE = range(2)


def scaled(x, by=1.0):
    return x * by


def scaled_by(by):
    return lambda x: x * by


class Scale:
    unit = 1.0

    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x * self.by

    def method(self, x):
        return x * self.by


@pytest.mark.parametrize(
    "before, after",
    [
        (1.0, 2.0),
        (1j, 2j),
        (b"a", b"b"),
        ("a", "b"),
        (slice(1), slice(2)),
        (range(1), range(2)),
        (np.dtype("f"), np.dtype("e")),
        (np.float32(1), np.float32(2)),
        (np.array([1, 2]), np.array([1, 3])),
        (Colour.RED, Colour.BLUE),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({1}, {2}),
        ([[1]], [[2]]),
        (SimpleNamespace(a=1), SimpleNamespace(a=2)),
        (SimpleNamespace(a=[1]), SimpleNamespace(a=[2])),
        (deque([1]), deque([2])),
        (Fraction(1), Fraction(2)),
        (scaled, scaled_by),
        (scaled_by(1), scaled_by(2)),
        (Scale(1), Scale(2)),
        (Scale(1).method, Scale(2).method),
    ],
)
def test_a_setting_tells_what_python_may_read(before, after):
    net = Net()
    graphs = CpuGraphs(lambda every=False: [net])
    net.own = before
    first = graphs.setting()
    assert graphs.setting() == first
    assert hash(graphs.setting()) == hash(first)
    net.own = after
    assert graphs.setting() != first


def test_a_setting_tells_what_is_changed_in_place(monkeypatch):
    class Own(Net):
        scale = 1.0

    net = Own()
    net.table, net.numbers = {"a": 1}, np.array([1, 2])
    net.options = SimpleNamespace(a=1)
    net.order = [net.norm, net.first]
    net.factor = Scale(1)
    net.chosen = net.conv.W
    net.add_persistent("step", np.array(0))
    graphs = CpuGraphs(lambda every=False: [net])

    def changes():
        net.table["a"] = 2
        yield
        net.numbers += 1
        yield
        net.options.a = 2
        yield
        net.order.reverse()
        yield
        net.chosen = net.conv.b
        yield
        net.step += 1
        yield
        monkeypatch.setattr(Own, "scale", 2.0)
        yield
        monkeypatch.setattr(Scale, "unit", 2.0)
        yield
        monkeypatch.setattr(scaled, "__defaults__", (2.0,))
        yield

    net.function = scaled
    before = graphs.setting()
    for _ in changes():
        now = graphs.setting()
        assert now != before
        before = now


def test_a_setting_tells_numbers_of_children():
    net = Net()
    graphs = CpuGraphs(lambda every=False: [net])

    def changes():
        net.conv.pad = 0, 0
        yield
        net.norm.eps = 1e-2
        yield
        net.first.eps = net.norm.eps
        yield
        net.first.factor = 2.0
        yield
        net.norm.factor = vars(net.first).pop("factor")
        yield
        net.norm.term = vars(net.norm).pop("factor")
        yield
        del net.norm.term
        yield
        # It only looks like an array.
        net.norm.scale = SimpleNamespace(dtype=np.float32, by=2.0)
        net.norm.register_persistent("scale")
        yield
        net.norm.scale.by = 3.0
        yield

    before = graphs.setting()
    for _ in changes():
        now = graphs.setting()
        assert now != before
        before = now


def test_a_setting_tells_names():
    net = Net()
    graphs = CpuGraphs(lambda every=False: [net])
    found = []
    for name in ("a", "b"):
        setattr(net, name, True)
        with chainer.using_config(f"flag_{name}", True):
            found.append(graphs.setting())
        delattr(net, name)
    assert found[0] != found[1]


def test_a_number_that_python_reads_and_that_is_zero_is_found():
    net, x = Net(), np.ones((2, 3, 8, 8), "f")
    net.add_persistent("offset", np.zeros(1, "f"))
    graphs = CpuGraphs(lambda every=False: [net])
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        replay = graphs.capture(lambda: (net(x) + float(net.offset[0])).array, [x])
        with pytest.raises(CannotReplayError, match="not all of its numbers"):
            replay()


def test_a_result_must_have_been_computed():
    net, x = Net(), np.ones((2, 3, 8, 8), "f")
    graphs = CpuGraphs(lambda every=False: [net])
    with chainer.no_backprop_mode(), pytest.raises(CannotReplayError, match="returns"):
        graphs.capture(lambda: (net(x).array, np.array((x > 4).any())), [x])


def test_memory_is_free_before_it_is_given_back(monkeypatch):
    net, x = Net(), np.ones((2, 3, 8, 8), "f")
    graphs = CpuGraphs(lambda every=False: [net])
    with chainer.no_backprop_mode():
        graphs.capture(lambda: net(x).array, [x])()
    for param in net.params():
        param.grad = np.ndarray(param.shape, "f", graphs._memory)
    own = net.norm.beta.grad = np.ones(16, "f")
    memory, freed = weakref.ref(graphs._memory.base), []
    monkeypatch.setattr(heap, "give_back", lambda: freed.append(memory() is None))
    graphs.free()
    assert freed == [True]
    assert net.norm.beta.grad is own and net.conv.W.grad is None
