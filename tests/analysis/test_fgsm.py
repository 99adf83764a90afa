import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix.analysis.fgsm import fgsm, gradient_sign


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 5)).astype(np.float32)
    return x, rng.integers(0, 3, 20).astype(np.int32)


def reference_gradient(w, b, x, t):
    """The gradient of a linear softmax model, in float64."""
    w, b, x = (a.astype(np.float64) for a in (w, b, x))
    e = np.exp(x @ w.T + b)
    return (e / e.sum(axis=1, keepdims=True) - np.eye(len(b))[t]) @ w / len(x)


def test_the_sign_is_that_of_the_gradient_of_a_linear_model(data):
    x, t = data
    w = np.random.default_rng(1).standard_normal((3, 5))
    net = L.Linear(5, 3, initialW=w, initial_bias=np.array([0.5, -1, 0]))
    gradient = reference_gradient(net.W.array, net.b.array, x, t)
    assert np.abs(gradient).min() > 1e-7  # no sign hangs on rounding
    sign = gradient_sign(net, x, t)
    assert sign.dtype == np.float32
    np.testing.assert_array_equal(sign, np.sign(gradient))


@pytest.mark.parametrize("batchsize", [20, 1])
@pytest.mark.parametrize("is_soft", [False, True])
def test_small_gradients_have_a_sign_in_half_precision(data, batchsize, is_soft):
    x, _ = data
    w = 4 * np.random.default_rng(1).standard_normal((3, 5))
    net = L.Linear(5, 3, initialW=w)
    for param in net.params():
        param.array = param.array.astype(np.float16)
    t = (x @ w.T).argmax(axis=1).astype(np.int32)
    x = x.astype(np.float16)
    gradient = reference_gradient(net.W.array, net.b.array, x, t)
    size = np.abs(gradient)
    assert size.min() < 2**-25  # which rounds to 0
    if is_soft:
        t = np.eye(3, dtype=np.float16)[t]
    parts = [slice(i, i + batchsize) for i in range(0, 20, batchsize)]
    sign = np.concatenate([gradient_sign(net, x[part], t[part]) for part in parts])
    assert sign.dtype == np.float16
    clear = size > 0.1 * size.max(axis=1, keepdims=True)
    np.testing.assert_array_equal(sign[clear], np.sign(gradient)[clear])


def test_the_loss_is_the_one_given(data):
    x, t = data
    net = L.Linear(5, 3)
    sign = gradient_sign(net, x, t, lambda y, t: -F.softmax_cross_entropy(y, t))
    np.testing.assert_array_equal(sign, -gradient_sign(net, x, t))


def test_the_network_stays_as_it_is(data):
    x, t = data
    net = chainer.Sequential(L.Linear(5, 8), L.BatchNormalization(8), F.dropout)
    net.append(L.Linear(8, 3))
    F.softmax_cross_entropy(net(x), t).backward()
    statistics = net[1].avg_mean.copy(), net[1].avg_var.copy()
    gradients = {name: param.grad.copy() for name, param in net.namedparams()}
    with chainer.no_backprop_mode():  # as an Evaluator may do
        sign = gradient_sign(net, x, t)
        np.testing.assert_array_equal(sign, gradient_sign(net, x, t))  # no dropout
    for name, param in net.namedparams():
        np.testing.assert_array_equal(param.grad, gradients[name])
    np.testing.assert_array_equal(net[1].avg_mean, statistics[0])
    np.testing.assert_array_equal(net[1].avg_var, statistics[1])


def test_perturbation():
    x = np.array([[0.1, 0.5, 0.95]], np.float32)
    direction = np.array([[-1, 0, 1]], np.float32)
    y = fgsm(x, direction, np.float64(0.25))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, [[-0.15, 0.5, 1.2]], rtol=1e-6)
    y = fgsm(x, direction, 0.25, (0, 1))
    np.testing.assert_array_equal(y, np.array([[0, 0.5, 1]], np.float32))


@pytest.mark.parametrize("x", [[-0.01, 1], [0, 1.01], [-3, 3]])
def test_inputs_out_of_their_bounds_are_an_error(x):
    x = np.array([x], np.float32)
    match = rf"clip=\(0, 1\) .* from {x[0, 0]:.4g} to {x[0, 1]:.4g}: .*clip=None"
    with pytest.raises(ValueError, match=match):
        fgsm(x, np.zeros_like(x), 0.1, (0, 1))


def test_a_rounding_is_within_the_bounds():
    x = np.array([[np.nextafter(np.float32(1), np.float32(2))]])
    np.testing.assert_array_equal(fgsm(x, np.ones_like(x), 0.1, (0, 1)), [[1]])


def test_each_channel_may_have_its_bounds():
    x = np.random.default_rng(0).random((5, 3, 4, 4), np.float32)
    mean = np.array([0.5, 0.4, 0.3], np.float32).reshape(3, 1, 1)
    low, high = (0 - mean) / 0.25, (1 - mean) / 0.25
    x = (x - mean) / np.float32(0.25)
    direction = np.sign(x)
    found = fgsm(x, direction, 2.0, (low, high))
    np.testing.assert_array_equal(found, np.clip(x + 2 * direction, low, high))
    with pytest.raises(ValueError, match="would change inputs by more than eps"):
        fgsm(x, direction, 2.0, (low + 1, high))


def test_a_network_without_a_gradient_is_named(data):
    class Rounding(chainer.Chain):
        def __init__(self):
            super().__init__(fc=L.Linear(5, 3))

        def forward(self, x):
            return self.fc(np.round(chainer.as_array(x)))

    with pytest.raises(RuntimeError, match="Rounding has no gradient"):
        gradient_sign(Rounding(), *data)
