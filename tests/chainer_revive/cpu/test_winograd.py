from unittest import mock

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import gradient_check
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

import chainer_revive
from chainer_revive.cpu.numba import winograd

LAYOUTS = ["channels first", "channels last", "every second", "reversed"]
EPS = np.finfo(np.float32).eps


@pytest.fixture(autouse=True)
def compiled(path):
    if path == "numpy":
        pytest.skip("has no loops")


def wherever_it_can(side):
    """As many points, of whatever can have them."""
    return lambda n, c, d, axes, *args, **options: side * winograd.covers(c, d, axes)


def results(function, x, W, b, gy=None, **options):
    """Returns the output and the gradients by x, W and b."""
    inputs = [chainer.Variable(a) for a in (x, W, b) if a is not None]
    y = function(*inputs, **options)
    if gy is None:
        gy = np.random.RandomState(9).randn(*y.shape).astype(x.dtype)
    gradients = chainer.grad([y], inputs, [chainer.Variable(gy)])
    return [v.array for v in (y, *gradients)]


def check(function, shape_x, shape_W, layout, side, lay_out, chainers_own, **options):
    random = np.random.RandomState(0)
    x, W = (lay_out(random.randn(*s).astype("f"), layout) for s in (shape_x, shape_W))
    b = random.randn(shape_W[function is F.deconvolution_2d]).astype("f")
    with mock.patch.object(winograd, "side", wherever_it_can(side)):
        found = results(function, x, W, b, **options)
    with chainers_own():
        exact = [a.astype("d") for a in (x, W, b)]
        gy = np.random.RandomState(9).randn(*found[0].shape).astype("f").astype("d")
        right = results(function, *exact, gy, **options)
        # What each sum would be without cancellation bounds its rounding error.
        bounds = results(function, *map(abs, exact), abs(gy), **options)
    for a, wanted, bound in zip(found, right, bounds, strict=True):
        assert a.dtype == np.float32 and a.shape == wanted.shape
        # Terms of neighbouring sums come in.
        assert np.all(abs(a - wanted) <= 20 * EPS * (bound + bound.max()))


FEW_AT_A_TIME = {"_BLOCK": 1, "_LEAST": 7, "_TILES": 7}
IN_PARTS = {"_LONG": 1, "_SUMS": 1 << 30, "_PARTS": 3, "_FEW": 7, "_BLOCK_OUTER": 1}


@settings(max_examples=75)
@given(
    n=st.integers(1, 3),
    image=st.tuples(*[st.integers(1, 9)] * 2),
    pad=st.tuples(*[st.integers(1, 3)] * 2),
    channels=st.tuples(*[st.sampled_from([16, 32, 48, 64, 144])] * 2),
    layout=st.sampled_from(LAYOUTS),
    side=st.sampled_from([4, 6]),
    taken=st.sampled_from([{}, FEW_AT_A_TIME, IN_PARTS]),
)
def test_as_in_chainer(
    n, image, pad, channels, layout, side, taken, lay_out, chainers_own
):
    c, d = channels
    with mock.patch.dict(vars(winograd), taken):
        shapes = (n, c, *image), (d, c, 3, 3)
        check(F.convolution_2d, *shapes, layout, side, lay_out, chainers_own, pad=pad)


@settings(max_examples=40)
@given(
    n=st.sampled_from([1, 7, 20, 70]),  # fewer and more than there are channels
    channels=st.tuples(*[st.sampled_from([16, 48, 64, 144])] * 2),
    layout=st.sampled_from(LAYOUTS),
    taken=st.sampled_from([{}, FEW_AT_A_TIME, IN_PARTS]),
)
def test_images_of_2x2_pixels(n, channels, layout, taken, lay_out, chainers_own):
    c, d = channels
    with mock.patch.dict(vars(winograd), taken):
        shapes = (n, c, 2, 2), (d, c, 3, 3)
        check(F.convolution_2d, *shapes, layout, 3, lay_out, chainers_own, pad=1)


@pytest.mark.parametrize("side", [4, 6])
@pytest.mark.parametrize("kernel, stride", [(3, 1), (6, 2), (5, 2)])
def test_deconvolution(side, kernel, stride, lay_out, chainers_own):
    check(
        *(F.deconvolution_2d, (2, 32, 5, 8), (32, 16, kernel, kernel)),
        *("channels last", side, lay_out, chainers_own),
        pad=1,
        stride=stride,
    )


@pytest.mark.parametrize("side", [4, 6])
def test_groups(side, lay_out, chainers_own):
    shapes = (2, 32, 6, 5), (64, 16, 3, 3)
    setting = "channels last", side, lay_out, chainers_own
    check(F.convolution_2d, *shapes, *setting, groups=2)


def calls(x_shape, W_shape, dtype="f", **options):
    """Returns how often a convolution and its gradients took the fewer products."""
    random = np.random.RandomState(0)
    x, W = (random.randn(*shape).astype(dtype) for shape in (x_shape, W_shape))
    with chainer_revive.explaining() as explanation:
        results(F.convolution_2d, x, W, np.zeros(len(W), dtype), **options)
    products = explanation.products
    assert products.total() >= 3 or dtype == "d"
    return products["Winograd"]


X, W = (4, 64, 16, 16), (64, 64, 3, 3)


def test_where_it_pays():
    assert calls(X, W, pad=1) == 3
    assert calls((1, 64, 4, 4), W, pad=1) == 2  # too few tiles to be precise
    assert calls((64, 64, 3, 3), W, pad=1) == 0  # more products
    assert calls((64, 64, 2, 2), W, pad=1) == 3
    assert calls((64, 64, 2, 1), W, pad=1) == 0
    assert calls((4, 16, 16, 16), (16, 16, 3, 3), pad=1) == 0
    assert calls((4, 63, 16, 16), (64, 63, 3, 3), pad=1) == 0
    assert calls(X, W, pad=1, stride=2) == 0
    assert calls(X, W, pad=1, dilate=2) == 0
    assert calls(X, (64, 64, 5, 5), pad=2) == 0
    assert calls(X, W, "d", pad=1) == 0


def test_switched_off():
    with chainer.using_config("winograd", False):
        assert calls(X, W, pad=1) == 0
    assert calls(X, W, pad=1) == 3


def test_unknown_size():
    with chainer.using_config("winograd", 3), pytest.raises(ValueError, match="is 3;"):
        calls(X, W, pad=1)


@pytest.mark.parametrize("taken", [{}, IN_PARTS], ids=["", "in parts"])
@pytest.mark.parametrize("size", [2, 4])
def test_same_on_several_threads(size, taken):
    random = np.random.RandomState(0)
    x, W_ = (random.randn(*s).astype("f") for s in ((9, 96, 7, 9), (80, 96, 3, 3)))
    found = []
    for threads in (1, 2, 3):
        with (
            mock.patch.object(winograd.threads, "count", lambda n=threads: n),
            mock.patch.dict(vars(winograd), {"_WORK": 1, "_MOVES": 1, **taken}),
            chainer.using_config("winograd", size),
        ):
            found.append(results(F.convolution_2d, x, W_, np.ones(80, "f"), pad=1))
    for others in found[1:]:
        for a, b in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "x_shape, W_shape, sizes",
    [
        (X, W, (4, 4, 2)),
        ((32, 64, 4, 4), W, (2, 2, 2)),  # one tile would be less exact
        ((4, 32, 16, 16), (64, 32, 3, 3), (2, 4, 2)),  # and so would few channels
        ((32, 64, 10, 10), W, (2, 2, 2)),  # many products beyond the image
    ],
)
def test_default_tiles(x_shape, W_shape, sizes):
    random = np.random.RandomState(0)
    x, W_ = (random.randn(*shape).astype("f") for shape in (x_shape, W_shape))
    found = {}
    for wanted in (True, 2, 4):
        with chainer.using_config("winograd", wanted):
            found[wanted] = results(F.convolution_2d, x, W_, None, pad=1)
    for i, size in enumerate(sizes):
        np.testing.assert_array_equal(found[True][i], found[size][i])


@pytest.mark.parametrize("check", ["check_backward", "numerical_grad"])
def test_not_under_a_gradient_check(check):
    random = np.random.RandomState(0)
    x, W_, gy = (random.randn(*s).astype("f") / 9 for s in (X, W, X))

    def function(x, W):
        return F.convolution_2d(x, W, pad=1)

    with mock.patch.object(winograd, "correlate", None):
        if check == "check_backward":
            options = {"atol": 1e-1, "rtol": 1e-1, "eps": 0.1}
            gradient_check.check_backward(function, (x, W_), gy, **options)
        else:
            W_ = chainer.Variable(W_)
            one = np.ones((), "f")
            gradient_check.numerical_grad(
                lambda: (function(x * one, W_).array,), (one,), (gy,)
            )
        with pytest.raises(TypeError):
            function(x, W_)


SHAPES = [
    *((8, 64, 64, 32), (16, 64, 128, 8), (8, 512, 512, 4), (2, 320, 160, 16)),
    *((4, 1024, 64, 8), (8, 32, 64, 16), (64, 256, 256, 2), (64, 64, 64, 2)),
]


@pytest.mark.parametrize("n, c, d, size", SHAPES)
def test_error_beside_that_of_the_direct_sums(n, c, d, size):
    random = np.random.RandomState(0)
    x = np.maximum(random.randn(n, c, size, size), 0).astype("f")
    W = (random.randn(d, c, 3, 3) / np.sqrt(c)).astype("f")
    gy = random.randn(n, d, size, size).astype("f")
    b = np.zeros(d, "f")

    def run(wanted):
        with chainer.using_config("winograd", wanted):
            return results(F.convolution_2d, x, W, b, gy, pad=1)[:3]

    exact = results(F.convolution_2d, *(a.astype("d") for a in (x, W, b, gy)), pad=1)
    direct = run(False)
    for wanted, most in ((True, (2, 2, 2)), (2, (2, 2, 2)), (4, (2.5, 2, 5))):
        for a, reference, right, times in zip(
            run(wanted), direct, exact[:3], most, strict=True
        ):
            assert not np.array_equal(a, reference)
            assert np.std(a - right) < times * np.std(reference - right)
