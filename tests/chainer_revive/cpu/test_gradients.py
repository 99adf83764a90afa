"""Gradients that are computed without a function of their own."""

from unittest import mock

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.function_hooks import TimerHook

pytestmark = pytest.mark.usefixtures("path")

FUNCTIONS = {
    "convolution": (
        lambda x, W, b: F.convolution_2d(x, W, b, stride=2, pad=1, dilate=(1, 2)),
        [(4, 8, 11, 9), (16, 8, 3, 2), (16,)],
    ),
    "1x1 convolution": (F.convolution_2d, [(4, 8, 6, 5), (16, 8, 1, 1), (16,)]),
    "groups": (
        lambda x, W: F.convolution_2d(x, W, groups=2, cover_all=True),
        [(3, 8, 6, 5), (12, 4, 3, 3)],
    ),
    "linear": (F.linear, [(40, 70), (60, 70), (60,)]),
    "relu": (F.relu, [(16, 32, 5, 5)]),
    "max pooling": (lambda x: F.max_pooling_2d(x, 3, 2, 1), [(8, 32, 9, 8)]),
    "average": (lambda x: F.average(x, axis=(2, 3)), [(8, 32, 9, 8)]),
    "average over other axes": (
        lambda x: F.average(x, axis=(1, 3)),
        [(8, 9, 9, 8)],
    ),
    "average, kept": (
        lambda x: F.average(x, axis=(2, 3), keepdims=True),
        [(8, 32, 9, 8)],
    ),
}


NOT_COVERED = "average over other axes", "average, kept"


@pytest.fixture(params=list(FUNCTIONS))
def function(request):
    """A function and arrays for it."""
    f, shapes = FUNCTIONS[request.param]
    random = np.random.RandomState(0)
    return f, [random.randn(*shape).astype("f") for shape in shapes]


def gradients(f, arrays, wanted=None, gy=None, **options):
    inputs = [chainer.Variable(a) for a in arrays]
    y = f(*inputs)
    if gy is None:
        gy = np.random.RandomState(1).randn(*y.shape).astype("f")
    wanted = range(len(inputs)) if wanted is None else wanted
    return chainer.grad(
        [y], [inputs[i] for i in wanted], [chainer.Variable(gy)], **options
    )


def test_as_in_chainer(function, chainers_own):
    with chainers_own():
        right = gradients(*function)
    found = gradients(*function)
    for a, b in zip(found, right, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a.array, b.array, rtol=1e-4, atol=1e-4)


def test_as_with_gradients_of_their_own(function):
    found = gradients(*function)
    right = gradients(*function, enable_double_backprop=True)
    for a, b in zip(found, right, strict=True):
        assert a.creator is None
        assert b.creator is not None
        np.testing.assert_array_equal(a.array, b.array)


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n not in NOT_COVERED])
def test_no_function_is_applied(name):
    f, shapes = FUNCTIONS[name]
    inputs = [chainer.Variable(np.ones(shape, "f")) for shape in shapes]
    y = f(*inputs)
    gy = chainer.Variable(np.ones_like(y.array))
    with mock.patch.object(chainer.FunctionNode, "apply", None):
        chainer.grad([y], inputs, [gy])


def test_of_some_inputs(function):
    every = gradients(*function)
    for i, right in enumerate(every):
        (found,) = gradients(*function, wanted=[i])
        np.testing.assert_array_equal(found.array, right.array)


def test_hooks_see_each_function(function, chainers_own):
    def names():
        with TimerHook() as hook:
            gradients(*function)
        return [name for name, _ in hook.call_history]

    with chainers_own():
        right = names()
    assert names() == right


def test_a_gradient_that_does_not_fit(function, chainers_own):
    f, arrays = function
    y = f(*arrays)

    def outcome(shape):
        try:
            return [g.shape for g in gradients(f, arrays, gy=np.ones(shape, "f"))]
        except Exception as error:
            return type(error)

    for shape in (y.shape[1:], (1, *y.shape[1:]), (*y.shape[:-1], y.shape[-1] + 1)):
        with chainers_own():
            right = outcome(shape)
        assert outcome(shape) == right


def test_a_gradient_of_another_dtype(function, chainers_own):
    f, arrays = function
    gy = np.random.RandomState(1).randn(*f(*arrays).shape)
    with chainers_own():
        right = gradients(f, arrays, gy=gy)
    for a, b in zip(gradients(f, arrays, gy=gy), right, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a.array, b.array, rtol=1e-4, atol=1e-4)


# As if a Variable were used again, or weights loaded, before the backward pass.
@pytest.mark.parametrize(
    ("which", "shape"), [(0, (2, 8, 4, 4)), (0, (2, 4, 9, 9)), (1, (8, 8, 1, 1))]
)
@pytest.mark.parametrize("wanted", [0, 1])
def test_convolution_of_another_shape_since(which, shape, wanted, chainers_own):
    def outcome():
        shapes = (2, 8, 9, 9), (8, 8, 3, 3)
        inputs = [chainer.Variable(np.ones(s, "f")) for s in shapes]
        y = F.convolution_2d(*inputs, pad=1)
        inputs[which].array = np.ones(shape, "f")
        gy = chainer.Variable(np.ones_like(y.array))
        try:
            return chainer.grad([y], [inputs[wanted]], [gy])[0].shape
        except Exception as error:
            return type(error)

    with chainers_own():
        right = outcome()
    assert outcome() == right


def test_relu_whose_output_is_another_since(chainers_own):
    def outcome():
        x = chainer.Variable(np.random.RandomState(0).randn(10000).astype("f"))
        y = F.relu(x)
        y.array = 1 - y.array
        return chainer.grad([y], [x], [chainer.Variable(np.ones_like(y.array))])[0]

    with chainers_own():
        right = outcome()
    np.testing.assert_array_equal(outcome().array, right.array)
