"""Gradients that are added to others in place."""

from unittest import mock

import chainer
import chainer.functions as F
import numpy as np
import pytest

import chainer_revive
from chainer_revive.cpu import compiled

pytestmark = pytest.mark.usefixtures("path")


def two_convolutions(stride):
    def network(h, W, V, b):
        yield F.convolution_2d(h, W, b, stride=stride)
        yield F.convolution_2d(h, V, stride=stride)

    return network


def one_of_each(h, W, V, b):
    yield F.convolution_2d(h, W, b) + h
    yield F.convolution_2d(h, V)


def with_padding(h, W, V, b):
    yield F.convolution_2d(h, W, b, pad=1)
    yield F.convolution_2d(h, V, pad=2, stride=3)


NETWORKS = {
    "stride 1": two_convolutions(1),
    "stride 2": two_convolutions(2),
    "sum": one_of_each,
    "padding": with_padding,
}


def gradients(network, channels, dtype, size=9):
    random = np.random.RandomState(0)
    shapes = (7, channels, size, size), *[(channels, channels, 1, 1)] * 2, (channels,)
    arrays = [random.randn(*shape).astype(dtype) for shape in shapes]
    x, *parameters = variables = [chainer.Variable(array) for array in arrays]
    h = x * 2
    sum([F.sum(F.sin(y)) for y in network(h, *parameters)]).backward(retain_grad=True)
    return [v.grad for v in (h, *variables)]


@pytest.mark.parametrize("channels", [5, 32, 64, 100])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_as_in_chainer(network, channels, chainers_own):
    with chainers_own():
        wanted = gradients(network, channels, "d")
    for g, right in zip(gradients(network, channels, "f"), wanted, strict=True):
        atol = 1e-5 * abs(right).max()
        np.testing.assert_allclose(g, right, rtol=1e-5, atol=atol)


def test_the_second_convolution_adds_in_place():
    loops = compiled.loops(np.dtype("f"))
    if loops is None:
        pytest.skip("NumPy adds afterwards")
    scatter = loops.convolution.scatter
    with mock.patch.object(loops.convolution, "scatter", wraps=scatter) as spy:
        gradients(NETWORKS["stride 1"], 32, "f")
    assert [call.args[4:] != () for call in spy.mock_calls] == [False, True]


def test_a_product_that_is_added_is_counted():
    if compiled.loops(np.dtype("f")) is None:
        pytest.skip("NumPy adds afterwards")
    with chainer_revive.explaining() as explanation:
        gradients(NETWORKS["stride 1"], 32, "f")
    assert explanation.products == {"direct sums": 6}


def test_a_gradient_of_the_user_stays_as_it_is():
    random = np.random.RandomState(0)
    x, W = (
        chainer.Variable(random.randn(*shape).astype("f"))
        for shape in [(2, 32, 9, 9), (32, 32, 1, 1)]
    )
    h = x * 2
    y = F.convolution_2d(h, W)
    (alone,) = chainer.grad([y], [h], [y])
    own = F.convolution_2d(x, W).array
    before = own.copy()
    (together,) = chainer.grad([y], [h], [y], grad_inputs=[chainer.Variable(own)])
    np.testing.assert_array_equal(own, before)
    np.testing.assert_allclose(together.array, alone.array + own, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("settings", [{"debug": True}, {"lazy_grad_sum": True}])
def test_who_watches_sees_sums_where_chainer_makes_them(settings, chainers_own):
    """Debug mode names the function at which it finds NaN, not a sum."""

    def run():
        calls = []

        class Log(chainer.FunctionHook):
            def forward_preprocess(self, function, in_data):
                calls.append(function.label)

            def backward_postprocess(self, function, in_data, grad_output):
                calls.append(("back", function.label))

        W = chainer.Parameter(np.ones((3, 3, 1, 1), "f"))
        W.grad = W.array * np.nan
        with chainer.using_config(*next(iter(settings.items()))), Log():
            h = chainer.Variable(np.ones((1, 3, 2, 2), "f")) * 2
            z = F.convolution_2d(h, W) + h
            try:
                F.sum(z).backward()
            except RuntimeError as e:
                calls.append(str(e).partition("\n")[0])
        return calls

    with chainers_own():
        wanted = run()
    assert run() == wanted
