import chainer
import chainer.functions as F
import numpy as np
import pytest

CASES = {
    "3x3": {"x": (2, 4, 7, 6), "W": (3, 4, 3, 3), "pad": 1},
    "1x1": {"x": (2, 4, 5, 5), "W": (6, 4, 1, 1)},
    "stride": {"x": (2, 3, 9, 8), "W": (4, 3, 3, 3), "stride": (2, 3), "pad": (1, 0)},
    "stride 2 of 1x1": {"x": (2, 3, 8, 7), "W": (4, 3, 1, 1), "stride": 2},
    "dilation": {"x": (2, 3, 9, 9), "W": (4, 3, 3, 2), "dilate": (2, 3), "pad": 2},
    "groups": {"x": (2, 6, 6, 5), "W": (9, 2, 3, 3), "groups": 3, "stride": 2},
    "depthwise": {"x": (2, 4, 6, 5), "W": (4, 1, 3, 3), "groups": 4, "pad": 1},
    "one pixel": {"x": (3, 4, 1, 1), "W": (5, 4, 1, 1)},
}
X, W3 = (2, 4, 6, 6), (5, 4, 3, 3)


def arrays(dtype, *shapes):
    random = np.random.RandomState(0)
    return [random.uniform(-1, 1, shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("function", [F.convolution_2d, F.deconvolution_2d])
def test_numbers(fake, gradients, compare, function, name, dtype, bias):
    options = dict(CASES[name])
    x, W = options.pop("x"), options.pop("W")
    channels = W[0]
    if function is F.deconvolution_2d:
        # The same kernel, run backwards.
        channels = x[1]
        x = (x[0], W[0], *x[2:])
    inputs = arrays(dtype, x, W, *([(channels,)] if bias else []))

    def call(*inputs):
        return function(*inputs, **options)

    expected = gradients(call, [x.astype(np.float64) for x in inputs])
    with fake() as executor:
        actual = gradients(call, inputs)
    compare(actual, expected, 1e-6 if dtype == "float32" else 4e-3)
    assert {a.dtype for a in actual if a is not None} == {np.dtype(dtype)}
    assert {o.kind for o in executor.operations} == {
        "convolution",
        "convolution by x",
        "convolution by W",
    }


@pytest.mark.parametrize(
    "x, W, options",
    [
        ("float64", "float64", {}),
        ("float32", "float64", {}),
        ("float32", "float32", {"cover_all": True, "stride": 2}),
    ],
)
def test_not_covered(fake, gradients, x, W, options):
    x, W = (a.astype(d) for a, d in zip(arrays("d", X, W3), (x, W), strict=True))

    def convolve(x):
        return F.convolution_2d(x, W, pad=1, **options)

    expected = gradients(convolve, [x])
    with fake() as executor:
        actual = gradients(convolve, [x])
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)
    assert not executor.operations


@pytest.mark.parametrize(
    "kind", ["convolution", "convolution by x", "convolution by W"]
)
def test_what_cudnn_refuses(fake, gradients, compare, kind):
    inputs = arrays("f", X, W3, (5,))
    expected = gradients(F.convolution_2d, inputs)
    with fake() as executor:
        executor.refuses = lambda operation: operation.kind == kind
        actual = gradients(F.convolution_2d, inputs)
    compare(actual, expected, 1e-5)
    assert executor.operations
    assert kind not in {o.kind for o in executor.operations}


def test_never(fake):
    with fake() as executor, chainer.using_config("use_cudnn", "never"):
        F.convolution_2d(*arrays("f", X, W3))
    assert not executor.operations


def test_config(fake):
    with fake() as executor:
        F.convolution_2d(*arrays("f", X, W3))
        with chainer.using_config("use_cudnn_tensor_core", "never"):
            F.convolution_2d(*arrays("f", X, W3))
        with chainer.using_config("cudnn_deterministic", True):
            F.convolution_2d(*arrays("f", X, W3))
    modes = [(o.tensor_cores, o.deterministic) for o in executor.operations]
    assert modes == [(True, False), (False, False), (True, True)]


@pytest.mark.parametrize("layout", ["first", "last", "sliced", "broadcast"])
def test_layouts(fake, gradients, compare, layout):
    x, W = arrays("f", X, W3)
    if layout == "last":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        W = np.ascontiguousarray(W.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    elif layout == "sliced":
        x, W = x[:, :, ::2, ::-1], W[::-1, :, :, ::-1]
    elif layout == "broadcast":
        x = np.broadcast_to(x[:, :, :1, :1], X)
    expected = gradients(F.convolution_2d, [x.astype("d"), W.astype("d")])
    with fake():
        actual = gradients(F.convolution_2d, [x, W])
    compare(actual, expected, 1e-6)


def test_images_keep_channels_last(fake):
    x, W = arrays("f", X, W3)
    x = chainer.Variable(x)
    with fake():
        y = F.convolution_2d(x, W, pad=1)
        y.grad = np.ones_like(y.array)
        y.backward()
    for image in (y.array, x.grad):
        assert image.transpose(0, 2, 3, 1).flags.c_contiguous


def test_kernels_keep_their_layout(fake):
    """Optimizers, hooks and serializers see parameters as Chainer makes them."""
    x, W = arrays("f", X, W3)
    W = chainer.Variable(W)
    with fake():
        y = F.convolution_2d(x, W)
        y.grad = np.ones_like(y.array)
        y.backward()
    assert W.grad.flags.c_contiguous


def test_errors_are_chainers(fake):
    x, W = arrays("f", (2, 4, 2, 2), W3)
    with fake(), pytest.raises(AssertionError, match="Height in the output"):
        F.convolution_2d(x, W)
