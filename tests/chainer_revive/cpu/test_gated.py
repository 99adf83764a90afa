"""The gradient of ReLU, made by that of the batch normalisation before it."""

from unittest import mock

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import FunctionNode

from chainer_revive.cpu import compiled

pytestmark = pytest.mark.usefixtures("path")

_C = 32


class Keep(FunctionNode):
    """Hands a gradient on, and keeps it."""

    def forward(self, inputs):
        return (inputs[0].copy(),)

    def backward(self, indexes, grad_outputs):
        self.kept = grad_outputs[0]
        self.values = self.kept.array.copy()
        return grad_outputs


def keep(x):
    function = Keep()
    return function.apply((x,))[0], function


def normalise(x, p):
    return F.batch_normalization(x, *p)


def one(x, W, p, q):
    yield F.relu(normalise(F.convolution_2d(x, W), p))


def block(x, W, p, q):
    x = F.relu(normalise(F.convolution_2d(x, W), q))
    yield F.relu(normalise(F.convolution_2d(x, W), p) + x)


def block_with_two(x, W, p, q):
    a, b = F.convolution_2d(x, W), F.convolution_2d(x, W * 2)
    yield F.relu(normalise(a, p) + normalise(b, q))


def twice(x, W, p, q):
    h = normalise(F.convolution_2d(x, W), p)
    yield F.relu(h)
    yield h


def broadcast(x, W, p, q):
    yield F.relu(normalise(x, p) + F.mean(x, axis=0, keepdims=True))


def sum_of_one(x, W, p, q):
    h = normalise(x, p)
    yield F.relu(h + h)


def kept_by_a_function(x, W, p, q):
    yield F.relu(normalise(x, p) + keep(normalise(x * x, q))[0])


NETWORKS = [
    *(one, block, block_with_two, twice, broadcast, sum_of_one, kept_by_a_function),
]


def gradients(network, dtype, retain_grad=False, change=None):
    """Returns the gradients of a network by all that it reads."""
    random = np.random.RandomState(0)
    shapes = (9, _C, 7, 7), (_C, _C, 1, 1), *[(_C,)] * 4
    arrays = [random.randn(*shape).astype(dtype) for shape in shapes]
    x, W, *rest = variables = [chainer.Parameter(array) for array in arrays]
    outputs = list(network(x * 2, W, rest[:2], rest[2:]))
    if change is not None:
        change(outputs)
    # Each has channels last, as convolution has.
    sum([F.sum(F.sin(F.convolution_2d(y, W))) for y in outputs]).backward(retain_grad)
    seen = *variables, *(outputs if retain_grad else ())
    return [v.grad for v in seen if v.grad is not None]


@pytest.fixture
def passes():
    """How gradients of batch normalisation are made; an array is not kept alive."""
    loops = compiled.loops(np.dtype("f"))
    if loops is None:
        pytest.skip("NumPy has a pass of its own for ReLU")
    backward, found = loops.batch_normalization.backward, []

    def spy(x, gy, gamma, mean, inv_std, gx, *gate):
        where = "in place" if np.shares_memory(gy, gx) else "apart"
        found.append(where if gate else "without ReLU")
        return backward(x, gy, gamma, mean, inv_std, gx, *gate)

    with mock.patch.object(loops.batch_normalization, "backward", spy):
        yield found


@pytest.mark.parametrize("retain_grad", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_as_in_chainer(network, retain_grad, chainers_own):
    with chainers_own():
        wanted = gradients(network, "d", retain_grad)
    found = gradients(network, "f", retain_grad)
    for g, right in zip(found, wanted, strict=True):
        np.testing.assert_allclose(g, right, rtol=1e-5, atol=2e-5 * abs(right).max())


@pytest.mark.parametrize(
    "network, wanted",
    [
        (one, ["in place"]),
        (block, ["apart", "in place"]),
        (block_with_two, ["apart", "without ReLU"]),
        (twice, ["without ReLU"]),
    ],
)
def test_one_pass_less(network, wanted, passes):
    gradients(network, "f")
    assert passes == wanted


def test_an_output_that_was_changed_lets_through_what_it_is_then(chainers_own):
    def change(outputs):
        outputs[0].array[:, ::2] = 0

    with chainers_own():
        wanted = gradients(one, "d", change=change)
    for g, right in zip(gradients(one, "f", change=change), wanted, strict=True):
        np.testing.assert_allclose(g, right, rtol=1e-5, atol=2e-5 * abs(right).max())


def test_an_infinite_gradient_is_as_in_chainer(chainers_own):
    def run():
        x = chainer.Variable(np.random.RandomState(0).randn(9, _C, 7, 7).astype("f"))
        p = np.ones(_C, "f"), np.zeros(_C, "f")
        W = np.full((_C, _C, 1, 1), 3e38, "f")
        h = F.relu(F.batch_normalization(F.convolution_2d(x, W * 0 + 1), *p))
        with np.errstate(all="ignore"):
            F.sum(F.convolution_2d(h, W)).backward()
        return x.grad

    with chainers_own():
        wanted = run()
    assert not np.isfinite(wanted).all()
    np.testing.assert_array_equal(np.isfinite(run()), np.isfinite(wanted))


def test_a_gradient_that_somebody_keeps_is_not_overwritten():
    random = np.random.RandomState(0)
    x = chainer.Variable(random.randn(9, _C, 7, 7).astype("f"))
    W = random.randn(_C, _C, 1, 1).astype("f")
    p = np.ones(_C, "f"), np.zeros(_C, "f")
    h = F.batch_normalization(F.convolution_2d(x, W), *p)
    y, function = keep(F.relu(h))
    F.sum(F.sin(F.convolution_2d(y, W))).backward()
    np.testing.assert_array_equal(function.kept.array, function.values)


def test_outputs_are_not_overwritten():
    random = np.random.RandomState(0)
    x = chainer.Variable(random.randn(9, _C, 7, 7).astype("f"))
    W = random.randn(_C, _C, 1, 1).astype("f")
    p = np.ones(_C, "f"), np.zeros(_C, "f")
    y = F.relu(F.batch_normalization(F.convolution_2d(x, W), *p))
    z = F.convolution_2d(y, W)
    before = y.array.copy(), z.array.copy()
    F.sum(F.sin(z)).backward()
    np.testing.assert_array_equal(y.array, before[0])
    np.testing.assert_array_equal(z.array, before[1])
