from unittest import mock

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import gradient_check
from chainer.utils.conv import get_conv_outsize
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chainer_revive.cpu.numpy import convolution

pytestmark = pytest.mark.usefixtures("path")
LAYOUTS = ["channels first", "channels last", "every second", "reversed"]


@st.composite
def problems(draw, deconvolution=False):
    """Shapes and options of a convolution, and a seed for its values."""
    few = st.integers(1, 3)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    many = st.sampled_from([1, 2, 3, 4, 5, 6, 16, 33])
    channels = st.integers(4, 5) if groups > 1 else many
    kernel, stride, dilate = (
        draw(st.tuples(n, n)) for n in (st.integers(1, 5), few, few)
    )
    options = {"stride": stride, "pad": draw(st.tuples(*[st.integers(0, 4)] * 2))}
    options |= {"dilate": dilate, "groups": groups}
    image = draw(st.tuples(*[st.integers(1, 9)] * 2))
    cover_all = draw(st.booleans())
    if not deconvolution:
        options["cover_all"] = cover_all
    out = [
        get_conv_outsize(*args, d=d, cover_all=cover_all)
        for *args, d in zip(image, kernel, stride, options["pad"], dilate, strict=True)
    ]
    assume(min(out) > 0)
    c, o = draw(channels) * groups, draw(channels) * groups
    W = (o, c // groups, *kernel)
    n = draw(few)
    if deconvolution:
        options["outsize"] = image
        x, bias = (n, o, *out), c
    else:
        x, bias = (n, c, *image), o
    return (
        x,
        W,
        bias if draw(st.booleans()) else None,
        options,
        draw(st.integers(0, 99)),
    )


def run(function, arrays, options, gy=None):
    """Returns output, gradients and gradients of gradients; ``gy`` is the output's."""
    variables = [chainer.Variable(a) for a in arrays]
    y = function(*variables, **options)
    if gy is None:
        gy = np.ones_like(y.array)
    first = chainer.grad(
        [y], variables, [chainer.Variable(gy)], enable_double_backprop=True
    )
    second = chainer.grad([F.sum(g * g) for g in first[:2]], variables[:2])
    return [v.array for v in (y, *first)], [v.array for v in second]


def check(function, problem, layout, chunk, dtype, chainers_own, lay_out):
    x, W, bias, options, seed = problem
    random = np.random.RandomState(seed)
    arrays = [random.randn(*s).astype(dtype) for s in (x, W, bias and (bias,)) if s]
    arrays[:2] = (lay_out(a, layout) for a in arrays[:2])
    with chainers_own():
        exact = [a.astype(np.float64) for a in arrays]
        shape = function(*exact, **options).shape
        gy = random.randn(*shape).astype(dtype)
        wanted, wanted2 = run(function, exact, options, gy.astype(np.float64))
        # What each sum would be without cancellation bounds its rounding error.
        size, _ = run(function, [abs(a) for a in exact], options, abs(gy * 1.0))
    with mock.patch.object(convolution, "CHUNK", chunk):
        got, got2 = run(function, arrays, options, lay_out(gy, layout))
    terms = 10 + max(np.prod(W[1:]), np.prod(W[2:]) * W[0], np.prod(shape))
    for result, right, bound in zip(got, wanted, size, strict=True):
        assert result.dtype == dtype and result.shape == right.shape
        assert np.all(abs(result - right) <= terms * np.finfo(dtype).eps * bound)
    for result, right in zip(got2, wanted2, strict=True):
        assert result.dtype == dtype and result.shape == right.shape
        error = abs(result - right).max()
        assert error <= 100 * np.finfo(dtype).eps * (abs(right).max() + 1)


cases = {
    "layout": st.sampled_from(LAYOUTS),
    "chunk": st.sampled_from([1, 1500, 1 << 21]),
    "dtype": st.sampled_from(["float32", "float64"]),
}


@settings(max_examples=150)
@given(problem=problems(), **cases)
def test_convolution_and_its_gradients(
    problem, layout, chunk, dtype, chainers_own, lay_out
):
    check(F.convolution_2d, problem, layout, chunk, dtype, chainers_own, lay_out)


@settings(max_examples=150)
@given(problem=problems(deconvolution=True), **cases)
def test_deconvolution_and_its_gradients(
    problem, layout, chunk, dtype, chainers_own, lay_out
):
    check(F.deconvolution_2d, problem, layout, chunk, dtype, chainers_own, lay_out)


@pytest.mark.parametrize(
    "x, W, options",
    [
        ((3, 7, 31, 45), (20, 7, 3, 3), {"pad": 1}),
        ((3, 7, 31, 45), (20, 7, 3, 3), {"pad": 1, "stride": 2}),
        ((2, 3, 45, 37), (64, 3, 7, 7), {"stride": 2, "pad": 3}),
        ((3, 137, 5, 6), (200, 137, 1, 1), {}),
        ((5, 96, 9, 13), (144, 96, 1, 1), {}),
        ((5, 144, 9, 13), (96, 144, 1, 1), {}),
        ((9, 256, 1, 1), (300, 256, 1, 1), {}),
        ((9, 192, 1, 1), (128, 192, 3, 3), {"pad": 1}),
        ((3, 130, 5, 6), (192, 130, 3, 3), {"stride": 2}),
        ((3, 64, 7, 6), (136, 64, 3, 3), {"dilate": 2, "pad": 2}),
        ((2, 130, 2, 3), (97, 130, 4, 4), {"dilate": 2, "pad": 4}),
        ((2, 201, 9, 7), (160, 201, 1, 1), {"stride": 2}),
        ((40, 256, 2, 2), (130, 256, 3, 3), {"pad": 1}),
        ((9, 65, 2, 2), (200, 65, 2, 2), {"pad": 3}),  # steps that see only padding
    ],
    ids=str,
)
def test_more_than_is_taken_at_a_time(x, W, options, chainers_own):
    random = np.random.RandomState(0)
    arrays = [random.randn(*shape) for shape in (x, W, W[:1])]
    with chainers_own():
        gy = np.cos(np.arange(F.convolution_2d(*arrays, **options).size))
        gy = gy.reshape(F.convolution_2d(*arrays, **options).shape)
        wanted, _ = run(F.convolution_2d, arrays, options, gy)
    single = [a.astype("f") for a in arrays]
    results, _ = run(F.convolution_2d, single, options, gy.astype("f"))
    for result, right in zip(results, wanted, strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-4, atol=1e-3)


def test_gradient_check():
    random = np.random.RandomState(0)
    x, W, b, gy, ggx, ggW, ggb = (
        random.uniform(-1, 1, shape)
        for shape in (
            *((2, 3, 6, 5), (4, 3, 3, 2), (4,), (2, 4, 3, 4)),
            *((2, 3, 6, 5), (4, 3, 3, 2), (4,)),
        )
    )

    def f(x, W, b):
        return F.convolution_2d(x, W, b, stride=(2, 1), pad=(1, 0))

    gradient_check.check_backward(f, (x, W, b), gy, dtype=np.float64)
    gradient_check.check_double_backward(
        f, (x, W, b), gy, (ggx, ggW, ggb), dtype=np.float64
    )


@pytest.mark.parametrize(
    "x, W",
    [
        (np.zeros((0, 3, 5, 5), "f"), np.ones((2, 3, 3, 3), "f")),
        (np.zeros((2, 3, 2, 2), "f"), np.ones((2, 3, 3, 3), "f")),
        (np.ones((2, 3, 5, 5), "e"), np.ones((2, 3, 3, 3), "e")),
        (np.ones((2, 3, 5, 5), "f"), np.ones((2, 3, 3, 3), "d")),
        (np.ones((2, 3, 5, 5), ">f4"), np.ones((2, 3, 3, 3), "f")),
        (np.ones((2, 0, 5, 5), "f"), np.ones((2, 0, 3, 3), "f")),
    ],
    ids=["empty batch", "too small", "half", "mixed", "big-endian", "no channels"],
)
@pytest.mark.parametrize("function", [F.convolution_2d, F.deconvolution_2d])
def test_what_is_not_covered_is_as_in_chainer(function, x, W, chainers_own):
    def outcome():
        try:
            v = chainer.Variable(x), chainer.Variable(W)
            y = function(*v)
            y.grad = np.ones_like(y.array)
            y.backward()
            return [(a.dtype, a.tolist()) for a in (y.array, v[0].grad, v[1].grad)]
        except Exception as error:
            return type(error), str(error)

    if function is F.deconvolution_2d:
        W = W.swapaxes(0, 1)
    with chainers_own():
        wanted = outcome()
    assert outcome() == wanted
