"""Evaluation in fewer passes: whatever a program does, it sees Chainer's values."""

import copy
import pickle
import sys
import threading
from unittest import mock

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.functions.activation.relu import ReLU
from chainer.functions.math.basic_math import Add
from chainer.functions.normalization.batch_normalization import (
    BatchNormalization,
    FixedBatchNormalization,
    GeneralBatchNormalizationImpl,
)

import chainer_revive
from chainer_revive.cpu import compiled

pytestmark = pytest.mark.usefixtures("path")


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(3, 16, 3, pad=1, nobias=True)
            self.conv2 = L.Convolution2D(16, 16, 3, pad=1)
            self.bn1, self.bn2 = (L.BatchNormalization(16) for _ in range(2))


def bottleneck(net, x):
    h = F.relu(net.bn1(net.conv1(x)))
    yield F.relu(net.bn2(net.conv2(h)) + h)


def two_branches(net, x):
    h = net.conv1(x)
    h1, h2 = net.bn1(h), net.bn2(net.conv2(h))
    yield F.relu(h2 + h1)
    yield h1
    yield h


def in_chainercv_style(net, x):
    h = net.conv1(x)
    h = net.bn1(h)
    h = F.relu(h)
    residual = net.bn2(net.conv2(h))
    h += residual
    yield F.relu(h)


def preactivation(net, x):
    h = net.conv1(x)
    for _ in range(2):
        h = net.conv2(F.relu(net.bn1(h))) + h
    yield h
    yield F.average(F.relu(net.bn2(h)), (2, 3))


def the_convolution_is_changed_after_the_normalisation(net, x):
    h = net.conv1(x)
    y = F.relu(net.bn1(h))
    h.array[...] = 7
    yield y
    yield h
    yield net.bn1(h)


def the_convolution_is_kept(net, x):
    h = net.conv1(x)
    pixels = h.array[0, 0]
    y = net.bn1(h)
    yield F.relu(y)
    yield y
    yield h
    pixels[...] = 3
    yield net.bn2(h)


def a_summand_is_changed(net, x):
    h = F.relu(net.bn1(net.conv1(x)))
    total = net.bn2(net.conv2(h)) + h
    h.array[...] += 1
    yield total
    yield h


def another_array_is_set(net, x):
    h = net.conv1(x)
    y = net.bn1(h)
    h.array = np.ones_like(h.array)
    yield net.bn2(h)
    z = F.relu(y)
    y.array = y.array + 1
    yield z
    yield y


def weights_and_input_are_changed(net, x):
    y = net.bn1(net.conv1(x))
    for array in (net.conv1.W.array, net.bn1.gamma.array, net.bn1.avg_mean, x):
        array[...] = 5
    yield F.relu(y)


def twice_the_same(net, x):
    h = net.bn1(net.conv1(x))
    yield h + h
    yield F.relu(F.relu(h)) + F.relu(h)
    yield net.bn2(net.bn1(net.bn1(net.conv1(x)) + h))


def other_arrays(net, x):
    h = net.bn1(net.conv1(x))
    yield h + np.ones_like(x[:, :1])
    yield h + 1
    yield np.ones(h.shape, "f") + h
    yield F.concat([h, net.conv1(x)])


def not_a_number(net, x):
    x[0, 0, 0, 0] = np.nan
    yield F.relu(net.bn1(net.conv1(x)))


def copies(net, x):
    h = net.bn1(net.conv1(x))
    yield copy.copy(F.relu(h))
    yield copy.deepcopy(F.relu(h))
    yield pickle.loads(pickle.dumps(h))


def with_backprop_later(net, x):
    h = net.bn1(net.conv1(x))
    h2 = F.relu(h)
    with chainer.using_config("enable_backprop", True):
        y = F.relu(net.conv2(h2)) + h
        gW, gh = chainer.grad([y], [net.conv2.W, h], [chainer.Variable(y.array)])
    yield y
    yield gW
    yield gh


PROGRAMS = [
    *(bottleneck, two_branches, in_chainercv_style, preactivation),
    *(the_convolution_is_changed_after_the_normalisation, the_convolution_is_kept),
    *(a_summand_is_changed, another_array_is_set, weights_and_input_are_changed),
    *(twice_the_same, other_arrays, not_a_number, copies, with_backprop_later),
]


def set_up(dtype, size):
    random = np.random.RandomState(0)
    np.random.seed(0)
    with chainer.using_config("dtype", np.dtype("f")):
        net = Net()
    for bn in (net.bn1, net.bn2):
        for array in (bn.gamma.array, bn.beta.array, bn.avg_mean):
            array[...] = random.randn(16)
        bn.avg_var[...] = random.rand(16) + 0.5
    x = random.randn(2, 3, size, size).astype(dtype)
    if dtype == "d":
        for param in net.params():
            param.array = param.array.astype("d")
        for bn in (net.bn1, net.bn2):
            bn.avg_mean, bn.avg_var = bn.avg_mean.astype("d"), bn.avg_var.astype("d")
    return net, x


def evaluate(program, dtype="f", size=6):
    net, x = set_up(dtype, size)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return [y.array.copy() for y in program(net, x)]


def train(program, dtype="f", size=6):
    """Returns outputs, gradients and running statistics."""
    net, x = set_up(dtype, size)
    net.cleargrads()
    ys = list(program(net, x))
    loss = sum([F.sum(F.sin(y * (i + 1))) for i, y in enumerate(ys)])
    outputs = [y.array.copy() for y in ys]
    loss.backward()
    found = [*outputs, net.bn1.avg_mean, net.bn1.avg_var]
    if np.isfinite(loss.array):  # zeros of padding times NaN are another matter
        found += [p.grad for _, p in sorted(net.namedparams()) if p.grad is not None]
    return found


@pytest.mark.parametrize(("run", "size"), [(evaluate, 1), (evaluate, 6), (train, 6)])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_sees_the_values_of_chainers_own_code(
    program, run, size, chainers_own
):
    with chainers_own():
        wanted = run(program, "d", size)
    got = run(program, size=size)
    assert len(got) == len(wanted)
    # The gradient by a bias before a normalisation is zero: of what, all together tell.
    scale = max(abs(right[np.isfinite(right)]).max(initial=0) for right in wanted)
    for y, right in zip(got, wanted, strict=True):
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, right, rtol=1e-5, atol=1e-5 * (1 + scale))


def normalised(net, x):
    return F.relu(net.bn1(net.conv1(x)))


def test_what_a_variable_knows(chainers_own):
    def outcome():
        net, x = Net(), np.ones((2, 3, 6, 6), "f")
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            y, z = normalised(net, x), normalised(net, x)
            return (
                *(y.node.shape, y.node.dtype, y.shape, y.dtype, len(y), y.creator),
                *(y.rank, y.requires_grad, z.ndim, z.size, type(z.array)),
            )

    with chainers_own():
        wanted = outcome()
    assert outcome() == wanted


@pytest.fixture
def one_pass():
    """Counts the passes that compute several functions; none may have its own."""
    loops = compiled.loops(np.dtype("f"))
    if loops is None:
        pytest.skip("NumPy computes one by one")
    finish = loops.batch_normalization.finish
    with (
        mock.patch.object(loops.batch_normalization, "finish", wraps=finish) as spy,
        mock.patch.object(loops.batch_normalization, "apply") as apply,
        mock.patch.object(loops.elementwise, "relu") as relu,
        mock.patch.object(loops.elementwise, "total") as total,
    ):
        yield spy
    assert not (apply.called or relu.called or total.called)


def test_one_pass_in_place_where_nobody_has_the_convolution(one_pass):
    net, x = Net(), np.ones((2, 3, 6, 6), "f")
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        (y,) = bottleneck(net, x)
        assert one_pass.call_count == 1  # for conv2
        assert y.array.min() == 0
        h = net.conv1(x)
        z = F.relu(net.bn1(h))
        assert z.array is not h.array
    places = [
        call.args[0].ctypes.data == call.args[-1].ctypes.data
        for call in one_pass.mock_calls
    ]
    assert places == [True, True, False]


def test_training_computes_normalisation_sum_and_relu_in_one_pass(one_pass):
    (y,) = bottleneck(Net(), np.ones((2, 3, 6, 6), "f"))
    assert one_pass.call_count == 2
    assert y.array.min() == 0


def test_interrupted_it_gives_no_wrong_numbers():
    loops = compiled.loops(np.dtype("f"))
    if loops is None:
        pytest.skip("NumPy computes one by one")
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        y = normalised(Net(), np.ones((2, 3, 6, 6), "f"))
        with (
            mock.patch.object(
                loops.batch_normalization, "finish", side_effect=KeyboardInterrupt
            ),
            pytest.raises(KeyboardInterrupt),
        ):
            y.array  # noqa: B018
        with pytest.raises(RuntimeError, match="call the network again"):
            y.array  # noqa: B018


def test_hooks_and_debug_mode_see_each_function():
    net, x = Net(), np.ones((2, 3, 6, 6), "f")
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        with chainer.function_hooks.TimerHook() as hook:
            normalised(net, x)
        names = [name for name, _ in hook.call_history]
        assert names == ["Convolution2DFunction", "FixedBatchNormalization", "ReLU"]
        net.bn1.avg_mean[0] = np.nan
        with (
            chainer.using_config("debug", True),
            pytest.raises(RuntimeError, match="computation of FixedBatchNormalization"),
        ):
            normalised(net, x)


def test_shapes_are_checked():
    net = Net()
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        h = net.conv1(np.ones((2, 3, 6, 6), "f"))
        short = np.ones(4, "f")
        with pytest.raises(chainer.utils.type_check.InvalidType):
            F.fixed_batch_normalization(h, short, short, short, short)
        with pytest.raises(chainer.utils.type_check.InvalidType):
            net.bn1(h) + net.conv1(np.ones((2, 3, 5, 5), "f"))


def test_two_threads_may_look_at_what_waits():
    random = np.random.RandomState(0)
    x, W = random.rand(2, 16, 8, 8).astype("f"), random.rand(64, 16, 3, 3).astype("f")
    values = random.rand(4, 64).astype("f") + 0.5
    found = [None, None]

    def waiting():
        return F.fixed_batch_normalization(F.convolution_2d(x, W, pad=1), *values)

    def look(y):
        found[0] = y.array

    def add(y, z):
        with chainer.no_backprop_mode():
            found[1] = (z + y).array

    with chainer.no_backprop_mode():
        wanted = waiting().array
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            with chainer.no_backprop_mode():
                y, z = waiting(), waiting()
            threads = [
                threading.Thread(target=look, args=(y,)),
                threading.Thread(target=add, args=(y, z)),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            np.testing.assert_allclose(found[0], wanted, rtol=1e-5)
            np.testing.assert_allclose(found[1], 2 * wanted, rtol=1e-5)
    finally:
        sys.setswitchinterval(interval)


class _Halved:
    """Batch normalisation whose output a user's code changes."""

    def __init__(self):
        self.own = GeneralBatchNormalizationImpl()

    def forward(self, **arguments):
        y, *others = self.own.forward(**arguments)
        return (y / 2, *others)


def test_what_a_selector_of_the_user_does_with_the_output():
    net, x = set_up("f", 6)
    ones, zeros = np.ones(16, "f"), np.zeros(16, "f")
    function = BatchNormalization(impl_selector=lambda *_: _Halved())
    (y,) = function.apply((net.conv1(x), ones, zeros))
    right = F.batch_normalization(net.conv1(x), ones, zeros)
    np.testing.assert_allclose(y.array, right.array / 2, rtol=1e-5, atol=1e-5)


def test_switched_in_between():
    net, x = set_up("f", 32)
    wanted = net.bn1(net.conv1(x)).array
    h = net.conv1(x)
    before = chainer_revive.state()["cpu"]
    chainer_revive.use(cpu="numpy")
    try:
        y = net.bn1(h).array
    finally:
        chainer_revive.use(cpu=before)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


METHODS = [
    (ReLU, "forward_cpu"),
    (Add, "forward"),
    (FixedBatchNormalization, "forward"),
    (BatchNormalization, "forward"),
    (GeneralBatchNormalizationImpl, "forward"),
    (GeneralBatchNormalizationImpl, "get_mean_and_var"),
]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("cls", "name"), METHODS)
def test_what_a_user_put_in_place_of_a_method(cls, name, train, chainers_own):
    def run():
        net, x = set_up("f", 6)
        own = getattr(cls, name)

        def doubled(self, *args, **kwargs):
            first, *others = own(self, *args, **kwargs)
            return (first * 2, *others)

        with (
            mock.patch.object(cls, name, doubled),
            chainer.using_config("train", train),
            chainer.using_config("enable_backprop", train),
        ):
            return next(bottleneck(net, x)).array

    with chainers_own():
        wanted = run()
    np.testing.assert_allclose(run(), wanted, rtol=1e-4, atol=1e-5)


def test_a_method_of_one_function_that_a_user_replaced():
    net, x = set_up("f", 6)
    function = BatchNormalization()
    own = function.forward
    function.forward = lambda inputs: (own(inputs)[0] / 2,)
    ones, zeros = np.ones(16, "f"), np.zeros(16, "f")
    (y,) = function.apply((net.conv1(x), ones, zeros))
    right = F.batch_normalization(net.conv1(x), ones, zeros)
    np.testing.assert_allclose(y.array, right.array / 2, rtol=1e-5, atol=1e-5)
