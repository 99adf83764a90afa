"""Linear layers without cuBLAS."""

import chainer
import chainer.functions as F
import numpy as np
import pytest

from chainer_revive.cuda import linear


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_kernel_compiles(dtype, nvrtc):
    nvrtc(linear.SOURCE, f"mmix_matmul_{dtype}", raw=True)


def results(dtype, nobias):
    random = np.random.RandomState(0)
    x, w, gy = (
        random.standard_normal(shape).astype(dtype)
        for shape in ((4, 5), (3, 5), (4, 3))
    )
    b = None if nobias else random.standard_normal(3).astype(dtype)
    inputs = [chainer.Variable(a) for a in (x, w, b) if a is not None]
    y = F.linear(*inputs)
    y.grad = gy
    y.backward(enable_double_backprop=True)
    first = [y.array, *(v.grad for v in inputs)]
    (g,) = chainer.grad([F.sum(inputs[0].grad_var ** 2)], [inputs[1]])
    return [*first, g.array]


@pytest.mark.parametrize("nobias", [False, True])
@pytest.mark.parametrize("dtype", ["e", "f"])
def test_gradients_are_chainers(dtype, nobias):
    calls = []

    def matmul(a, b):
        assert a.dtype == b.dtype == dtype
        calls.append(a.shape)
        return a @ b

    wanted = results(dtype, nobias)
    with linear.capturable(matmul):
        actual = results(dtype, nobias)
    assert calls[:3] == [(4, 5), (4, 3), (3, 4)]
    for a, b in zip(actual, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, 1e-2 if dtype == "e" else 1e-6)


def test_other_dtypes_are_chainers():
    shapes = (2, 3), (4, 3), (4,)
    with linear.capturable(None):
        for dtypes in ("ddd", "fef"):
            x, w, b = (np.ones(s, d) for s, d in zip(shapes, dtypes, strict=True))
            v = chainer.Variable(x)
            y = F.linear(v, chainer.Variable(w), b)
            y.grad = np.ones_like(y.array)
            y.backward()
            np.testing.assert_array_equal(y.array, np.full((2, 4), 4))
            np.testing.assert_array_equal(v.grad, np.full((2, 3), 4))


def test_chainers_functions_come_back():
    calls = []

    def matmul(a, b):
        calls.append(a)
        return a @ b

    with pytest.raises(ZeroDivisionError), linear.capturable(matmul):
        F.linear(np.ones((2, 3), "f"), np.ones((4, 3), "f"))
        1 / 0  # noqa: B018
    F.linear(np.ones((2, 3), "f"), np.ones((4, 3), "f"))
    assert len(calls) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (128, 10, 2048), (33, 50, 17)])
def test_on_a_gpu(shape, dtype):
    import cupy

    rows, columns, depth = shape
    random = np.random.RandomState(0)
    a = random.standard_normal((rows, depth)).astype(dtype)
    b = random.standard_normal((columns, depth)).astype(dtype)
    c = linear.matmul(cupy.asarray(a), cupy.asarray(b).T)
    wanted = a.astype("d") @ b.T.astype("d")
    tolerance = 1e-2 if dtype == "float16" else 1e-4
    np.testing.assert_allclose(c.get(), wanted, tolerance, tolerance)
