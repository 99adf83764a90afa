from unittest import mock

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import gradient_check
from chainer.functions.normalization.batch_normalization import (
    BatchNormalization,
    GeneralBatchNormalizationImpl,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from chainer_revive.cpu.adapters import batch_normalization as bn
from chainer_revive.cpu.numpy import batch_normalization as in_numpy

pytestmark = pytest.mark.usefixtures("path")
LAYOUTS = ["channels first", "channels last", "every second", "reversed"]


def make(shape, seed, dtype):
    random = np.random.RandomState(seed)
    c = shape[1]
    x = random.randn(*shape) * 2 + 3
    gamma, beta, mean = random.randn(3, c)
    var = random.rand(c) + 0.5
    gy = random.randn(*shape)
    return [a.astype(dtype) for a in (x, gamma, beta, mean, var, gy)]


def train(x, gamma, beta, mean, var, gy):
    inputs = [chainer.Variable(a) for a in (x, gamma, beta)]
    mean, var = mean.copy(), var.copy()
    y = F.batch_normalization(*inputs, running_mean=mean, running_var=var, decay=0.8)
    grads = chainer.grad(
        [y], inputs, [chainer.Variable(gy)], enable_double_backprop=True
    )
    second = chainer.grad([F.sum(grads[0] ** 2)], [inputs[0]])
    return [y.array, mean, var, *(g.array for g in (*grads, *second))]


def infer(x, gamma, beta, mean, var, gy):
    inputs = [chainer.Variable(a) for a in (x, gamma, beta, mean, var)]
    y = F.fixed_batch_normalization(*inputs)
    grads = chainer.grad([y], inputs, [chainer.Variable(gy)])
    return [y.array, *(g.array for g in grads)]


@pytest.mark.parametrize("function", [train, infer])
@settings(max_examples=60)
@given(
    shape=st.tuples(*[st.integers(1, 7)] * 4)
    | st.tuples(*[st.integers(1, 30)] * 2)
    | st.tuples(*[st.integers(1, 5)] * 3),
    layout=st.sampled_from(LAYOUTS),
    piece=st.sampled_from([1, 40, 1 << 16]),
    width=st.sampled_from([1, 7, 512]),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 99),
)
@pytest.mark.filterwarnings("ignore:A batch with no more than one sample")
def test_as_in_chainer(
    function, shape, layout, piece, width, dtype, seed, chainers_own, lay_out
):
    x, *others, gy = make(shape, seed, dtype)
    with chainers_own():
        own = function(x, *others, gy)
        exact = function(*(a.astype(np.float64) for a in (x, *others, gy)))
    x, gy = (lay_out(a, layout) for a in (x, gy))
    with (
        mock.patch.multiple(bn, _SMALL=0, _PIXELS=99),
        mock.patch.multiple(in_numpy, _PIECE=piece, _WIDTH=width),
    ):
        got = function(x, *others, gy)
    for result, chainers, right in zip(got, own, exact, strict=True):
        assert result.dtype == chainers.dtype and result.shape == chainers.shape
        error, accepted = abs(result - right).max(), abs(chainers - right).max()
        scale = 1 + abs(right).max()
        # A sample alone or nearly so: its tiny deviations are multiplied by 1 / std.
        scale *= 250 if len(x) * x[0, 0].size < 4 else 1
        assert error <= 5 * accepted + 50 * np.finfo(dtype).eps * scale


def test_precise_far_from_zero():
    x = np.random.RandomState(0).randn(64, 16, 8, 8).astype("f") + 1000
    gamma, beta = np.ones(16, "f"), np.zeros(16, "f")
    y = F.batch_normalization(x, gamma, beta, eps=1e-9).array
    x = x.astype(np.float64)
    axis = 0, 2, 3
    right = (x - x.mean(axis, keepdims=True)) / x.std(axis, keepdims=True)
    assert abs(y - right).max() < 1e-4  # float32 knows 1000 to 6e-5


def test_gradient_check():
    *arrays, _, _, gy = make((3, 2, 4, 3), 0, np.float64)
    *ggs, _, _, _ = make((3, 2, 4, 3), 1, np.float64)
    f = F.batch_normalization
    with mock.patch.object(bn, "_SMALL", 0):
        gradient_check.check_backward(f, arrays, gy, dtype=np.float64)
        gradient_check.check_double_backward(
            f, arrays, gy, ggs, dtype=np.float64, atol=1e-3
        )


@pytest.mark.parametrize("axis", [(0,), (0, 1, 2), (0, 2), (0, 1, 3)])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", [(5, 4, 3, 2), (3, 3, 3, 3)])
def test_other_axes(axis, train, shape, chainers_own, lay_out):
    def compute():
        random = np.random.RandomState(0)
        x = lay_out(random.randn(*shape).astype("f"), "channels last")
        rest = [n for i, n in enumerate(shape) if i not in axis]
        gamma, beta, mean = random.randn(3, *rest).astype("f")
        with mock.patch.object(bn, "_SMALL", 0):
            if train:
                return F.batch_normalization(x, gamma, beta, axis=axis).array
            y = F.fixed_batch_normalization(x, gamma, beta, mean, mean**2, axis=axis)
            return y.array

    with chainers_own():
        wanted = compute()
    np.testing.assert_allclose(compute(), wanted, rtol=1e-5, atol=1e-6)


def test_statistics_of_a_subclass_are_its_own():
    class Impl(GeneralBatchNormalizationImpl):  # as in ChainerMN
        def get_mean_and_var(self, axis, gamma, x, xp, interm_dtype):
            return np.zeros(x.shape[1], x.dtype), np.ones(x.shape[1], x.dtype)

    x = np.random.RandomState(0).randn(4, 3, 5, 5).astype("f") + 1
    function = BatchNormalization(eps=0, impl_selector=lambda *_: Impl())
    with mock.patch.object(bn, "_SMALL", 0):
        (y,) = function.apply((x, np.ones(3, "f"), np.zeros(3, "f")))
    np.testing.assert_allclose(y.array, x, rtol=1e-6)


SHAPES = [(2, 3, 5, 5), (9, 300, 3, 3), (64, 16, 8, 8), (300, 7)]


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_without_functions_are_those_of_functions(shape):
    def gradients(double):
        x, gamma, beta, *_, gy = make(shape, 0, np.float32)
        inputs = [chainer.Variable(a) for a in (x, gamma, beta)]
        y = F.batch_normalization(*inputs)
        y.grad = gy
        y.backward(enable_double_backprop=double)
        return [v.grad for v in inputs]

    for plain, of_functions in zip(gradients(False), gradients(True), strict=True):
        np.testing.assert_array_equal(plain, of_functions)
        assert plain.flags.owndata or plain.base.flags.owndata


@pytest.mark.parametrize("shape", [s for s in SHAPES if len(s) == 4])
@pytest.mark.parametrize("decay", [0.8, np.float64(0.8), 0.0])
def test_running_averages_of_what_waits(shape, decay):
    """Where a convolution was before, a loop updates them, rounded as NumPy rounds."""
    x, gamma, beta, mean, var, _ = make(shape, 0, np.float32)
    conv = chainer.links.Convolution2D(shape[1], shape[1], 1)
    found = []
    for h in (conv(x), conv(x).array):
        averages = mean.copy(), var.copy()
        y = F.batch_normalization(
            *(h, gamma, beta),
            running_mean=averages[0],
            running_var=averages[1],
            decay=decay,
        )
        found.append([y.array, *averages])
    for waiting, at_once in zip(*found, strict=True):
        np.testing.assert_array_equal(waiting, at_once)
    exact = h.astype(np.float64).transpose(1, 0, 2, 3).reshape(shape[1], -1)
    wanted = 0.8 * mean + 0.2 * exact.mean(1), 0.8 * var + 0.2 * exact.var(1, ddof=1)
    if decay:
        for got, right in zip(found[0][1:], wanted, strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["dtype", "strides"])
def test_running_averages_of_other_kinds(kind, chainers_own):
    def compute():
        x, gamma, beta, *averages, _ = make((9, 6, 5, 5), 0, np.float32)
        eye = np.eye(6, dtype="f")[:, :, None, None]
        h = F.convolution_2d(x, eye)
        if kind == "dtype":
            averages = [a.astype(np.float64) for a in averages]
        else:
            averages = [np.repeat(a, 2)[::2] for a in averages]
        F.batch_normalization(
            *(h, gamma, beta), running_mean=averages[0], running_var=averages[1]
        )
        return averages

    with chainers_own():
        wanted = compute()
    for got, right in zip(compute(), wanted, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-6)


def test_running_averages_that_must_not_change():
    x, gamma, beta, mean, var, _ = make((9, 6, 5, 5), 0, np.float32)
    h = F.convolution_2d(x, np.eye(6, dtype="f")[:, :, None, None])
    mean.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        F.batch_normalization(h, gamma, beta, running_mean=mean, running_var=var)


def test_hooks_see_the_gradient():
    x, gamma, beta, *_ = make((9, 6, 5, 5), 0, np.float32)
    y = F.sum(F.batch_normalization(chainer.Variable(x), gamma, beta))
    hook = chainer.function_hooks.TimerHook()
    with hook:
        y.backward()
    assert "BatchNormalizationGrad" in hook.summary()


def test_own_methods_of_a_subclass():
    class Own(BatchNormalization):
        def forward(self, inputs):
            (y,) = super().forward(inputs)
            return (y + 1,)

        def backward(self, indexes, grad_outputs):
            return [g * 2 for g in super().backward(indexes, grad_outputs)]

    found = []
    for cls in (BatchNormalization, Own):
        x, gamma, beta, *_, gy = make((9, 6, 5, 5), 0, np.float32)
        x = chainer.Variable(x)
        (y,) = cls().apply((x, gamma, beta))
        F.sum(y * gy).backward()
        found.append((y.array, x.grad))
    np.testing.assert_allclose(found[1][0], found[0][0] + 1, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1][1], found[0][1] * 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("waiting", [True, False])
def test_an_eps_for_each_channel(waiting):
    x, gamma, beta, *_ = make((9, 6, 5, 5), 0, np.float32)
    eps = np.linspace(0.1, 2, 6).astype("f")
    h = F.convolution_2d(x, np.eye(6, dtype="f")[:, :, None, None])
    y = F.batch_normalization(h if waiting else x, gamma, beta, eps=eps)
    c = (slice(None), None, None)
    mean, var = x.mean((0, 2, 3))[c], x.var((0, 2, 3))[c]
    wanted = (x - mean) / np.sqrt(var + eps[c]) * gamma[c] + beta[c]
    np.testing.assert_allclose(y.array, wanted, rtol=1e-4, atol=1e-5)


EPS = [2e-5, 1, np.float64(1e-3), np.linspace(0.1, 2, 6).astype("f")]


@pytest.mark.parametrize("eps", EPS)
def test_factors_of_given_statistics_are_rounded_as_in_chainer(eps, chainers_own):
    random = np.random.RandomState(0)
    gamma, var = random.standard_normal(6).astype("f"), random.rand(6).astype("f")
    zeros, one = np.zeros(6, "f"), np.ones((1, 6, 1, 1), "f")
    kernel = np.eye(6, dtype="f")[:, :, None, None]

    def factors():
        with chainer.no_backprop_mode():
            h = F.convolution_2d(one, kernel)
            y = F.fixed_batch_normalization(h, gamma, zeros, zeros, var, eps)
            return y.array.ravel()

    with chainers_own():
        wanted = factors()
    np.testing.assert_array_equal(factors(), wanted)


def test_running_averages_that_are_numbers():
    x, gamma, beta, *_ = make((9, 6, 5, 5), 0, np.float32)
    function = BatchNormalization(mean=0.0, var=1.0, decay=0.75)
    function.apply((x, gamma, beta))
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(function.running_mean, mean / 4, rtol=1e-4)
    np.testing.assert_allclose(function.running_var, 0.75 + var / 4, rtol=1e-4)


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_a_method_of_the_implementation_that_a_user_replaced(name):
    own = getattr(GeneralBatchNormalizationImpl, name)

    def doubled(self, *args, **kwargs):
        first, *others = own(self, *args, **kwargs)
        return (first * 2, *others)

    def run():
        x, gamma, beta, *_, gy = make((9, 6, 5, 5), 0, np.float32)
        x = chainer.Variable(x)
        y = F.batch_normalization(x, gamma, beta)
        y.grad = gy
        y.backward()
        return {"forward": y.array, "backward": x.grad}

    wanted = run()
    wanted[name] = wanted[name] * 2
    with mock.patch.object(GeneralBatchNormalizationImpl, name, doubled):
        found = run()
    for key, array in found.items():
        np.testing.assert_allclose(array, wanted[key], rtol=1e-6)
