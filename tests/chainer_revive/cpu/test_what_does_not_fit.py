"""Arrays of other shapes than a function expects, and numbers of NumPy."""

from unittest import mock

import chainer
import chainer.functions as F
import numpy as np
import pytest

from chainer_revive.cpu.adapters import batch_normalization, elementwise, linear

pytestmark = pytest.mark.usefixtures("path")


@pytest.fixture(autouse=True)
def small():
    with (
        mock.patch.object(batch_normalization, "_SMALL", 0),
        mock.patch.object(elementwise, "_SMALL", 0),
        mock.patch.object(linear, "_FEW", 1),
    ):
        yield


def values(*shape):
    return np.random.RandomState(0).randn(*shape).astype("float32")


def outcome(f):
    """Returns what is computed, or the kind of error."""
    with chainer.using_config("type_check", False):
        try:
            results = f()
        except Exception as error:
            return [type(error)]
    return [None if r is None else r.array for r in results]


X, W, GAMMA = values(4, 5, 6, 6), values(8, 5, 3, 3), values(5)
CASES = {
    "gradient of ReLU": (F.relu, [X], (1, 1, 1, 1)),
    "of a batch": (
        lambda x, g: F.batch_normalization(x, g, GAMMA),
        [X, GAMMA],
        (1, 5, 1, 1),
    ),
    "of a convolution": (F.convolution_2d, [X, W], (1, 8, 4, 4)),
    "of channels": (F.convolution_2d, [X, W], (4, 1, 4, 4)),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_other_shapes(case, chainers_own):
    function, inputs, shape = CASES[case]

    def compute():
        variables = [chainer.Variable(a) for a in inputs]
        y = function(*variables)
        return chainer.grad([y], variables, [chainer.Variable(values(*shape))])

    with chainers_own():
        wanted = outcome(compute)
    for result, right in zip(outcome(compute), wanted, strict=True):
        if isinstance(right, np.ndarray):
            np.testing.assert_allclose(result, right, rtol=1e-3, atol=1e-4)
        else:
            assert result == right


@pytest.mark.parametrize(
    "compute",
    [
        lambda: [F.convolution_2d(X, values(8, 4, 3, 3))],
        lambda: [F.convolution_2d(X, values(8, 6, 3, 3))],
        lambda: [F.deconvolution_2d(X, values(4, 8, 3, 3))],
        lambda: [F.linear(values(3, 5), values(4, 6))],
    ],
)
def test_channels_that_do_not_fit(compute, chainers_own):
    with chainers_own():
        wanted = outcome(compute)
    assert isinstance(wanted[0], type)
    assert outcome(compute) == wanted


def test_numbers_of_numpy():
    two, one = np.int64(2), np.int64(1)
    for _ in range(2):
        a = F.convolution_2d(X, W, stride=(two, two), pad=(one, one))
        b = F.convolution_2d(X, W, stride=2, pad=1)
        np.testing.assert_array_equal(a.array, b.array)
        a, b = F.average_pooling_2d(X, two), F.average_pooling_2d(X, 2)
        np.testing.assert_array_equal(a.array, b.array)


def test_arrays_whose_elements_are_not_aligned():
    records = np.zeros(W.shape, [("value", "f4"), ("byte", "u1")])
    records["value"] = W
    found, right = F.convolution_2d(X, records["value"]), F.convolution_2d(X, W)
    np.testing.assert_array_equal(found.array, right.array)


def test_a_stride_that_is_no_integer_leaves_nothing_behind():
    with pytest.raises(TypeError):
        F.convolution_2d(X, W, stride=3.0, pad=2)
    assert F.convolution_2d(X, W, stride=3, pad=2).ndim == 4


def test_sums_of_many_products_are_as_precise_as_one_float32_sum():
    random = np.random.RandomState(0)
    x, gy = (random.rand(16, c, 32, 32).astype("f") for c in (4, 8))
    exact = np.einsum("ncyx,ndyx->dc", x.astype("d"), gy.astype("d"))
    v = chainer.Variable(x)
    w = chainer.Variable(values(8, 4, 1, 1))
    y = F.convolution_2d(v, w)
    (gw,) = chainer.grad([y], [w], [chainer.Variable(gy)])
    # One after the other, as OpenBLAS adds on some processors: no sum is worse.
    products = np.einsum("ncyx,ndyx->dcnyx", x, gy).reshape(8, 4, -1)
    one_by_one = np.cumsum(products, axis=2)[..., -1]
    assert one_by_one.dtype == np.float32
    bound = 2 * abs(one_by_one / exact - 1).max()
    assert abs(gw.array[..., 0, 0] / exact - 1).max() < bound
