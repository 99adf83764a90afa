from unittest import mock

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.utils.conv import get_conv_outsize
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chainer_revive.cpu.numpy import pooling

pytestmark = pytest.mark.usefixtures("path")
LAYOUTS = ["channels first", "channels last", "every second", "reversed"]


@st.composite
def problems(draw):
    pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
    image, ksize, stride, pad = (
        draw(st.tuples(st.integers(1, 9), st.integers(1, 9))),
        draw(pairs),
        draw(pairs),
        draw(st.tuples(st.integers(0, 3), st.integers(0, 3))),
    )
    cover_all = draw(st.booleans())
    out = [
        get_conv_outsize(*args, cover_all)
        for args in zip(image, ksize, stride, pad, strict=True)
    ]
    assume(min(out) > 0)
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 4)), *image
    return shape, (ksize, stride, pad), cover_all, draw(st.integers(0, 99))


def run(function, x, gy, ggx):
    """Returns output, gradient and the gradient of the gradient."""
    x, ggx = chainer.Variable(x), chainer.Variable(ggx)
    y = function(x)
    gy = chainer.Variable(gy(y.shape))
    (gx,) = chainer.grad([y], [x], [gy], enable_double_backprop=True)
    (ggy,) = chainer.grad([gx], [gy], [ggx])
    return [v.array for v in (y, gx, ggy)]


@settings(max_examples=50)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 4),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(["float32", "float64"]),
    keepdims=st.booleans(),
)
def test_means_over_pixels(shape, layout, dtype, keepdims, chainers_own, lay_out):
    random = np.random.RandomState(sum(shape))
    x, ggx = random.randn(2, *shape).astype(dtype)

    def function(x):
        return F.average(x, axis=(2, 3), keepdims=keepdims)

    def gy(shape):
        return np.random.RandomState(0).randn(*shape).astype(dtype)

    with chainers_own():
        exact = [a.astype("d") for a in (x, ggx)]
        wanted = run(function, exact[0], lambda s: gy(s).astype("d"), exact[1])
    for result, right in zip(
        run(function, lay_out(x, layout), gy, ggx), wanted, strict=True
    ):
        assert result.dtype == dtype and result.shape == right.shape
        tolerance = 20 * np.finfo(dtype).eps
        np.testing.assert_allclose(result, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("channels", [1, 2])
def test_averages_of_many_pixels(channels, lay_out):
    x = lay_out(np.full((1, channels, 512, 512), 0.1, "f"), "channels last")
    results = [F.average_pooling_2d(x, 512).array[..., 0, 0]]
    if channels == 1:  # NumPy adds several channels one by one.
        results.append(F.average(x, axis=(2, 3)).array)
    for result in results:
        np.testing.assert_allclose(result, x[:, :, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("name", ["max", "average"])
@settings(max_examples=100)
@given(
    problem=problems(),
    layout=st.sampled_from(LAYOUTS),
    piece=st.sampled_from([1, 100, 1 << 18]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_as_in_chainer(name, problem, layout, piece, dtype, chainers_own, lay_out):
    shape, window, cover_all, seed = problem
    random = np.random.RandomState(seed)
    # Rounded, so that many elements of a window are the largest.
    x, ggx = random.randn(2, *shape).astype(dtype).round()

    def function(x):
        if name == "average":
            return F.average_pooling_2d(x, *window)
        return F.max_pooling_2d(x, *window, cover_all=cover_all)

    def gy(shape):
        return lay_out(np.random.RandomState(seed).randn(*shape).astype(dtype), layout)

    if name == "average":
        fits = (get_conv_outsize(*a) for a in zip(shape[2:], *window, strict=True))
        assume(min(fits) > 0)
    with chainers_own():
        wanted = run(function, x, gy, ggx)
    with mock.patch.object(pooling, "_PIECE", piece):
        got = run(function, lay_out(x, layout), gy, ggx)
    for result, right in zip(got, wanted, strict=True):
        assert result.dtype == right.dtype and result.shape == right.shape
        # A window of padding only has the maximum -inf.
        tolerance = 200 * np.finfo(dtype).eps
        np.testing.assert_allclose(result, right, rtol=tolerance, atol=tolerance)
    if name == "max":
        np.testing.assert_array_equal(got[0], wanted[0])


def test_indices_for_upsampling(chainers_own):
    x = np.random.RandomState(0).randn(2, 3, 7, 7).astype("f")

    def pool():
        return F.max_pooling_2d(x, 3, 2, return_indices=True)

    with chainers_own():
        _, wanted = pool()
    y, indexes = pool()
    assert indexes.dtype == wanted.dtype
    np.testing.assert_array_equal(indexes, wanted)
    up = F.upsampling_2d(y, indexes, 3, 2, outsize=(7, 7))
    assert up.shape == x.shape


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_place(bad, chainers_own):
    x = np.random.RandomState(0).randn(1, 1, 4, 4).astype("f")

    def gradient(x, gy):
        x = chainer.Variable(x)
        y = F.max_pooling_2d(x, 2)
        y.grad = gy
        y.backward()
        return y.array, x.grad

    gy = np.array([[[[1, bad], [2, 3]]]], "f")
    with chainers_own():
        wanted = gradient(x, gy)
    for result, right in zip(gradient(x, gy), wanted, strict=True):
        np.testing.assert_array_equal(result, right)
    x[0, 0, 1, 2] = bad
    assert np.isnan(F.max_pooling_2d(x, 2).array).sum() == np.isnan(bad)


def test_too_large_a_window_is_chainers_error():
    with pytest.raises(AssertionError, match="Output sizes should be positive"):
        F.max_pooling_2d(np.ones((1, 1, 2, 2), "f"), 5, cover_all=False)
