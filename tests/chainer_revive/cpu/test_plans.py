"""Small convolutions, computed by plans from the third time on."""

import threading
from unittest import mock

import chainer
import chainer.functions as F
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainer_revive
from chainer_revive.cpu import buffers
from chainer_revive.switches import use_what_the_environment_asks_for

pytest.importorskip("numba")
from chainer_revive.cpu.numba import elementwise, plans

LAYOUTS = ["channels first", "channels last", "every second", "reversed"]


@pytest.fixture(autouse=True, scope="module")
def numba():
    chainer_revive.use(cpu="numba")
    yield
    use_what_the_environment_asks_for()


def step(x, W, b, gy, **options):
    """Returns the output of a convolution and all gradients."""
    inputs = [chainer.Variable(a) for a in (x, W, b)]
    y = F.convolution_2d(*inputs, **options)
    return [v.array for v in (y, *chainer.grad([y], inputs, [chainer.Variable(gy)]))]


def images(*shape):
    """Random images whose channels lie last in memory."""
    n, c, h, w = shape
    x = np.random.RandomState(0).randn(n, h, w, c).astype("f")
    return x.transpose(0, 3, 1, 2)


def planned():
    return [plan for plan in buffers.of_thread.plans.values() if plan]


@settings(max_examples=20)
@given(
    n=st.integers(1, 4),
    c=st.sampled_from([1, 3, 16, 32]),
    d=st.sampled_from([1, 8, 16, 32]),
    size=st.integers(3, 9),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    pad=st.integers(0, 1),
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 3),
)
def test_to_the_bit(n, c, d, size, kernel, stride, pad, layouts, lay_out):
    random = np.random.RandomState(0)
    options = {"stride": stride, "pad": pad}
    out = (size + 2 * pad - kernel) // stride + 1
    shapes = (n, c, size, size), (d, c, kernel, kernel), (n, d, out, out)
    steps = []
    for _ in range(4):
        arrays = (random.randn(*shape).astype("f") for shape in shapes)
        x, W, gy = (lay_out(a, how) for a, how in zip(arrays, layouts, strict=True))
        steps.append((x, W, random.randn(d).astype("f"), gy))
    with mock.patch.object(
        plans, "run", lambda _, arrays, f, *first: f(*first, *arrays)
    ):
        wanted = [step(*arrays, **options) for arrays in steps]
    for arrays, right in zip(steps, wanted, strict=True):
        for a, b in zip(step(*arrays, **options), right, strict=True):
            assert a.shape == b.shape and a.strides == b.strides
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_small_network_has_plans_for_all(kernel):
    buffers.of_thread.plans.clear()
    for _ in range(4):  # while buffers grow, plans are forgotten
        for c, d, size in ((1, 32, 8), (32, 32, 8), (32, 64, 4), (64, 64, 4)):
            x, gy, W = (
                images(2, c, size, size),
                images(2, d, size, size),
                np.ones((d, c, kernel, kernel), "f"),
            )
            step(x, W, W[:, 0, 0, 0].copy(), gy, pad=kernel // 2)
    assert len(planned()) == 8  # forwards and backwards


def test_results_are_arrays_of_their_own():
    arrays = images(2, 16, 6, 6), images(16, 16, 3, 3)
    with chainer.no_backprop_mode():
        ys = [F.convolution_2d(*arrays, pad=1).array for _ in range(5)]
    assert planned()
    wanted = ys[0].copy()
    ys[3].fill(0)
    np.testing.assert_array_equal(ys[4], wanted)


def test_the_way_may_change_between():
    arrays = images(4, 64, 8, 8), images(64, 64, 3, 3)

    def run(winograd):
        with chainer.using_config("winograd", winograd), chainer.no_backprop_mode():
            return F.convolution_2d(*arrays, pad=1).array

    found = [[run(way) for way in (True, False)] for _ in range(4)]
    for pair in found[1:]:
        np.testing.assert_array_equal(pair, found[0])
    assert planned() and not np.array_equal(*found[0])


def test_each_thread_has_its_own():
    arrays = images(2, 16, 6, 6), images(16, 16, 3, 3)
    wanted = F.convolution_2d(*arrays, pad=1).array
    wrong = []

    def work():
        for _ in range(200):
            y = F.convolution_2d(*arrays, pad=1).array
            wrong.append(not np.array_equal(y, wanted))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(wrong) == 600 and not any(wrong)


def relu(x, y):
    elementwise.relu(x, y)
    return y


# What cannot be run again: the contents of an array that NumPy has computed.
@pytest.mark.parametrize(
    "compute",
    [
        lambda x: relu(x + 1, np.empty_like(x)),
        lambda x: relu(x, np.empty_like(x)) + 1,
        lambda x: relu(x, np.zeros((2, *x.shape), "f")[0].copy()).copy(),
        lambda x: added(x, np.zeros_like(x)),
        lambda x: added(x, buffers.buffer("a", x.shape, "f") * 0),
        lambda x: added(x, filled(buffers.buffer("a", x.shape, "f"))),
        lambda x: NotImplemented,
    ],
)
def test_computations_without_a_plan(compute):
    random = np.random.RandomState(0)
    for _ in range(5):
        x = random.randn(3, 5).astype("f")
        found, wanted = plans.run("key", [x], compute), compute(x)
        if wanted is not NotImplemented:
            np.testing.assert_array_equal(found, wanted)
    assert not planned()


def added(x, y):
    elementwise.total(x, y, y)
    return y


def filled(a):
    a.fill(3)
    return a


def test_what_a_task_writes_for_another():
    def compute(x):
        elementwise.total(x, x, total := buffers.buffer("a", x.shape, "f"))
        elementwise.total(x, total, y := np.empty_like(x))
        return y

    random = np.random.RandomState(0)
    for _ in range(5):
        x = random.randn(3, 5).astype("f")
        np.testing.assert_array_equal(plans.run("key", [x], compute), 3 * x)
    assert planned()


def test_a_bias_of_one_element_is_added_everywhere():
    arrays = images(2, 16, 6, 6), images(32, 16, 3, 3), np.full(1, 7, "f")
    with chainer.using_config("type_check", False), chainer.no_backprop_mode():
        y = F.convolution_2d(*arrays, pad=1).array
        plain = F.convolution_2d(*arrays[:2], pad=1).array
    np.testing.assert_allclose(y, plain + 7, rtol=1e-5, atol=1e-5)


def test_a_small_view_of_a_large_array():
    x = np.zeros((4, 64, 1024, 1024), "f")[::2, ::16, :3, :3]  # not touched: no memory
    W = images(8, 4, 3, 3)
    with chainer.no_backprop_mode():
        for _ in range(4):
            y = F.convolution_2d(x, W).array
    np.testing.assert_array_equal(y, 0)
    assert not planned()
