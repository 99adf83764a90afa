"""The gradient of ReLU, made by that of the batch normalisation before it."""

import contextlib
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
        return (inputs[0].copy("K"),)

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
    h = normalise(F.convolution_2d(x, W), p)
    yield F.relu(h + F.convolution_2d(x[:1], W))


def sum_of_one(x, W, p, q):
    h = normalise(x, p)
    yield F.relu(h + h)


class Plus(FunctionNode):
    """A sum of another's, which gives both terms one gradient."""

    def forward(self, inputs):
        return (inputs[0] + inputs[1],)

    def backward(self, indexes, grad_outputs):
        return grad_outputs[0], grad_outputs[0]


def beside_what_needs_no_gradient(x, W, p, q):
    h = normalise(F.convolution_2d(x.array, W.array), (p[0].array, p[1].array))
    (both,) = Plus().apply((normalise(x, p), normalise(F.sin(x), q)))
    yield F.relu(h + both)


def kept_by_a_function(x, W, p, q):
    yield F.relu(normalise(x, p) + keep(normalise(x * x, q))[0])


NETWORKS = [
    *(one, block, block_with_two, twice, broadcast, sum_of_one, kept_by_a_function),
    beside_what_needs_no_gradient,
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


def test_retained_gradients_are_those_of_normalisation(chainers_own):
    kept = []

    def network(x, W, p, q):
        kept.append(normalise(F.convolution_2d(x, W), p))
        yield F.relu(kept[-1])

    for dtype in "fd":
        with chainers_own() if dtype == "d" else contextlib.nullcontext():
            gradients(network, dtype, retain_grad=True)
    found, right = [h.grad for h in kept]
    np.testing.assert_allclose(found, right, rtol=1e-5, atol=2e-5 * abs(right).max())


def test_a_backward_of_the_users_is_called(chainers_own):
    """As for guided backpropagation."""

    def guided(x, W, p, q):
        y = F.relu(normalise(F.convolution_2d(x, W), p))

        def backward(indexes, gys):
            gy = gys[0].array
            return (chainer.Variable(gy * (y.array > 0) * (gy > 0)),)

        y.creator.backward = backward
        yield y

    def doubled(x, W, p, q):
        h = normalise(F.convolution_2d(x, W), p) + x
        h.creator.backward = lambda indexes, gys: (gys[0] * 2, gys[0] * 3)
        yield F.relu(h)

    def tripled(x, W, p, q):
        h = normalise(x, p)
        y = F.convolution_2d(h, W)
        backward = y.creator.backward
        y.creator.backward = lambda i, gys: backward(i, (gys[0] * 3,))
        yield F.relu(normalise(y, q) + h)

    def watched(x, W, p, q):
        h = normalise(F.convolution_2d(x, W), p)
        backward = h.creator.backward
        h.creator.backward = lambda i, gys: (kept.append(gys[0]), backward(i, gys))[1]
        yield F.relu(h)

    kept: list[chainer.Variable] = []
    for network in (guided, doubled, tripled, watched):
        with chainers_own():
            wanted = gradients(network, "d")
        for g, right in zip(gradients(network, "f"), wanted, strict=True):
            atol = 2e-5 * abs(right).max()
            np.testing.assert_allclose(g, right, rtol=1e-5, atol=atol)
    right, found = [gy.array for gy in kept]
    np.testing.assert_allclose(found, right, rtol=1e-5, atol=2e-5 * abs(right).max())


def test_a_wrong_gradient_is_an_error_as_in_chainer(chainers_own):
    class Cast(FunctionNode):
        def forward(self, inputs):
            return (inputs[0].astype("f"),)

        def backward(self, indexes, grad_outputs):
            return grad_outputs

    def run():
        x, W, *p = [np.ones(n, "f") for n in ((9, _C, 7, 7), (_C, _C, 1, 1), _C, _C)]
        z = chainer.Variable(x.astype("d"))
        h = F.batch_normalization(F.convolution_2d(chainer.Variable(x), W), *p)
        y = F.relu(h + Cast().apply((z,))[0])
        with pytest.raises(TypeError) as error:
            F.sum(F.convolution_2d(y, W)).backward()
        return str(error.value).splitlines()[-1]

    with chainers_own():
        wanted = run()
    assert run() == wanted


def test_a_gradient_does_not_wait_after_the_way_back():
    random = np.random.RandomState(0)
    W = random.randn(_C, _C, 1, 1).astype("f")
    p = np.ones(_C, "f"), np.zeros(_C, "f")
    x = chainer.Variable(random.randn(9, _C, 7, 7).astype("f"))

    class Stop(Keep):
        def backward(self, indexes, grad_outputs):
            self.kept = grad_outputs[0]
            return (None,)

    stop = Stop()
    h = F.batch_normalization(F.convolution_2d(x, W), *p)
    y = F.relu(h + stop.apply((h * 2,))[0])
    F.sum(F.sin(F.convolution_2d(y, W))).backward()
    positive = y.array > 0
    y.array[...] = 0
    np.testing.assert_array_equal(stop.kept.array[~positive], 0)
    assert (stop.kept.array[positive] != 0).any()


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
