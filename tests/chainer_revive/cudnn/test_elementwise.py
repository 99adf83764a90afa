import chainer
import chainer.functions as F
import numpy as np
import pytest

X = (2, 3, 4, 5)


def images(n, layout="last", dtype="f"):
    random = np.random.RandomState(0)
    first = [random.uniform(-1, 1, X).astype(dtype) for _ in range(n)]
    if layout == "first":
        return first
    last = [np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for x in first]
    last = [x.transpose(0, 3, 1, 2) for x in last]
    return [first[0], *last[1:]] if layout == "mixed" else last


FUNCTIONS = {
    "relu": (F.relu, 1),
    "add": (lambda a, b: a + b, 2),
    "add three": (F.add, 3),
    "accumulate": (lambda a, b: F.relu(a) + F.relu(a) * b + a, 2),
}


@pytest.mark.parametrize("dtype", "efd")
@pytest.mark.parametrize("layout", ["first", "last", "mixed"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers(fake, gradients, name, layout, dtype):
    function, n = FUNCTIONS[name]
    expected = gradients(function, images(n, layout, dtype))
    with fake():
        actual = gradients(function, images(n, layout, dtype))
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)
        assert a is None or a.dtype.char == dtype


@pytest.mark.parametrize(
    "name, layout",
    [("relu", "last"), ("add", "last"), ("add", "mixed"), ("add three", "mixed")],
)
def test_channels_stay_last(fake, name, layout):
    function, n = FUNCTIONS[name]
    inputs = [chainer.Variable(x) for x in images(n, layout)]
    with fake():
        y = function(*inputs)
        y.grad = images(1, "last")[0]
        y.backward()
    for x in (y.array, *(x.grad for x in inputs)):
        assert x.transpose(0, 2, 3, 1).flags.c_contiguous


def test_gradients_add_up_channels_last(fake):
    (x,) = map(chainer.Variable, images(1))
    with fake():
        y = F.relu(x) + F.relu(x)
        y.grad = images(1)[0]
        y.backward()
    assert x.grad.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("shape", [(5,), (1, 3, 1, 1), (2, 1, 4, 5)])
def test_broadcasting(fake, shape):
    (x,) = map(chainer.Variable, images(1))
    b = chainer.Variable(np.random.RandomState(1).uniform(size=shape).astype("f"))
    with fake():
        y = x + b
        F.sum(y).backward()
    np.testing.assert_array_equal(y.array, x.array + b.array)
    assert b.grad.shape == shape


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", "efd")
@pytest.mark.parametrize("layout", ["first", "last", "mixed"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_on_a_gpu(on_gpu, gradients, compare, name, layout, dtype):
    function, n = FUNCTIONS[name]
    inputs = images(n, layout, dtype)
    expected = gradients(function, inputs)
    on_device = [
        on_gpu.asarray(x.transpose(0, 2, 3, 1), order="C").transpose(0, 3, 1, 2)
        if not x.flags.c_contiguous
        else on_gpu.asarray(x)
        for x in inputs
    ]
    actual = gradients(function, on_device)
    compare(actual, expected, {"e": 4e-3, "f": 1e-6, "d": 1e-14}[dtype])
    if any(not x.flags.c_contiguous for x in inputs) and name != "accumulate":
        y = function(*map(chainer.Variable, on_device)).array
        assert y.transpose(0, 2, 3, 1).flags.c_contiguous
