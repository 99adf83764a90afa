import threading

import chainer
import chainer.functions as F
import numpy as np
import pytest

from chainer_revive.cudnn import executor, plans

CASES = {
    "3x3": {"x": (2, 4, 7, 6), "W": (3, 4, 3, 3), "pad": 1},
    "1x1": {"x": (2, 4, 5, 5), "W": (6, 4, 1, 1)},
    "stride": {"x": (2, 3, 9, 8), "W": (4, 3, 3, 3), "stride": (2, 3), "pad": (1, 0)},
    "stride 2 of 1x1": {"x": (2, 3, 8, 7), "W": (4, 3, 1, 1), "stride": 2},
    "dilation": {"x": (2, 3, 9, 9), "W": (4, 3, 3, 2), "dilate": (2, 3), "pad": 2},
    "groups": {"x": (2, 6, 6, 5), "W": (9, 2, 3, 3), "groups": 3, "stride": 2},
    "depthwise": {"x": (2, 4, 6, 5), "W": (4, 1, 3, 3), "groups": 4, "pad": 1},
    "many channels": {"x": (4, 32, 9, 8), "W": (64, 32, 3, 3), "pad": 1},
    "one pixel": {"x": (3, 4, 1, 1), "W": (5, 4, 1, 1)},
}
X, W3 = (2, 4, 6, 6), (5, 4, 3, 3)


def arrays(dtype, *shapes):
    random = np.random.RandomState(0)
    return [random.uniform(-1, 1, shape).astype(dtype) for shape in shapes]


def case(function, name, dtype, bias):
    options = dict(CASES[name])
    x, W = options.pop("x"), options.pop("W")
    channels = W[0]
    if function is F.deconvolution_2d:
        # The same kernel, run backwards.
        channels = x[1]
        x = (x[0], W[0], *x[2:])
    inputs = arrays(dtype, x, W, *([(channels,)] if bias else []))
    return lambda *inputs: function(*inputs, **options), inputs


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("function", [F.convolution_2d, F.deconvolution_2d])
def test_numbers(fake, gradients, compare, function, name, dtype, bias):
    call, inputs = case(function, name, dtype, bias)
    expected = gradients(call, [x.astype(np.float64) for x in inputs])
    with fake() as used:
        actual = gradients(call, inputs)
    compare(actual, expected, 1e-6 if dtype == "float32" else 4e-3)
    assert {a.dtype for a in actual if a is not None} == {np.dtype(dtype)}
    assert {o.kind for o in used.operations} == {
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
    with fake() as used:
        actual = gradients(convolve, [x])
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)
    assert not used.operations


@pytest.mark.parametrize(
    "kind", ["convolution", "convolution by x", "convolution by W"]
)
def test_what_cudnn_refuses(fake, gradients, compare, kind):
    inputs = arrays("f", X, W3, (5,))
    expected = gradients(F.convolution_2d, inputs)
    with fake() as used:
        used.refuses = lambda operation: operation.kind == kind
        actual = gradients(F.convolution_2d, inputs)
    compare(actual, expected, 1e-5)
    assert used.operations
    assert kind not in {o.kind for o in used.operations}


def test_never(fake):
    with fake() as used, chainer.using_config("use_cudnn", "never"):
        F.convolution_2d(*arrays("f", X, W3))
    assert not used.operations


def test_config(fake):
    with fake() as used:
        F.convolution_2d(*arrays("f", X, W3))
        with chainer.using_config("use_cudnn_tensor_core", "never"):
            F.convolution_2d(*arrays("f", X, W3))
        with chainer.using_config("cudnn_deterministic", True):
            F.convolution_2d(*arrays("f", X, W3))
    modes = [(o.tensor_cores, o.deterministic) for o in used.operations]
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


@pytest.mark.gpu
@pytest.mark.parametrize(
    "dtype, tensor_cores, eps",
    [
        ("float32", "auto", 5e-3),
        ("float32", "never", 1e-5),
        ("float16", "auto", 1e-2),
        ("float64", "auto", 1e-12),
    ],
)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("function", [F.convolution_2d, F.deconvolution_2d])
def test_numbers_on_a_gpu(
    on_gpu, gradients, compare, function, name, dtype, tensor_cores, eps
):
    call, inputs = case(function, name, dtype, bias=True)
    expected = gradients(call, [x.astype(np.float64) for x in inputs])
    with chainer.using_config("use_cudnn_tensor_core", tensor_cores):
        actual = gradients(call, [on_gpu.asarray(x) for x in inputs])
    compare(actual, expected, eps)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_cudnn_computes_on_a_gpu(on_gpu, monkeypatch, dtype):
    call, inputs = case(F.convolution_2d, "many channels", dtype, bias=False)
    x, W = (chainer.Variable(on_gpu.asarray(x)) for x in inputs)

    def fail(*args):
        raise AssertionError("Chainer's own code ran")

    node = chainer.functions.connection.convolution_2d
    monkeypatch.setattr(node.Convolution2DFunction, "_forward_gpu_core", fail)
    monkeypatch.setattr(node.Convolution2DGradW, "_forward_gpu_core", fail)
    y = call(x, W)
    y.grad = on_gpu.ones_like(y.array)
    y.backward()
    for image in (y.array, x.grad):
        assert image.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.gpu
def test_addresses_that_are_not_aligned(on_gpu, compare):
    call, (x, W) = case(F.convolution_2d, "many channels", "float32", bias=False)
    padded = (
        on_gpu.empty(x.size + 1, "f")[1:].reshape(4, 9, 8, 32).transpose(0, 3, 1, 2)
    )
    padded[...] = on_gpu.asarray(x)
    y = call(padded, on_gpu.asarray(W)).array
    compare([y.get()], [call(x.astype("d"), W.astype("d")).array], 5e-3)


@pytest.mark.gpu
def test_other_streams_and_plans_from_the_disk(on_gpu, monkeypatch, compare):
    call, inputs = case(F.convolution_2d, "many channels", "float32", bias=True)
    expected = [call(*(x.astype("d") for x in inputs)).array]
    for _ in range(2):
        monkeypatch.setattr(executor, "_of_thread", threading.local())
        stream = on_gpu.cuda.Stream(non_blocking=True)
        with stream:
            y = call(*map(on_gpu.asarray, inputs)).array
        stream.synchronize()
        compare([y.get()], expected, 5e-3)
        monkeypatch.setattr(plans, "build", None)  # the second time, from a file


@pytest.mark.gpu
def test_determinism_on_a_gpu(on_gpu):
    call, inputs = case(F.convolution_2d, "many channels", "float32", bias=False)

    def gradient():
        x, W = (chainer.Variable(on_gpu.asarray(x)) for x in inputs)
        F.sum(call(x, W) ** 2).backward()
        return W.grad.tobytes()

    with chainer.using_config("cudnn_deterministic", True):
        assert len({gradient() for _ in range(5)}) == 1
