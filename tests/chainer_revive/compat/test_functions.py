"""Functions whose sources are patched, against NumPy."""

import copy

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import distributions, serializers
from chainer.backends import cuda
from chainer.dataset import concat_examples

from chainer_revive.compat import runtime


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int32", "float32"])
@pytest.mark.parametrize(
    "pad", [lambda xs: F.pad_sequence(xs, padding=-1).array, None], ids=["F", "concat"]
)
def test_negative_padding_wraps_around_as_in_c(dtype, pad):
    xs = [np.array([1, 2, 3], dtype), np.array([4], dtype)]
    y = pad(xs) if pad else concat_examples(xs, padding=-1)
    assert y.dtype == dtype
    fill = np.array(-1).astype(dtype)
    np.testing.assert_array_equal(y, np.array([[1, 2, 3], [4, fill, fill]], dtype))


def test_fix_and_resize_images():
    x = np.array([[[[-1.5, 0.5], [1.5, 2.5]]]], "f")
    np.testing.assert_array_equal(F.fix(x).array, [[[[-1, 0], [1, 2]]]])
    y = F.resize_images(x, (3, 3))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.array[0, 0, 1, 1], x.mean())
    y = F.resize_images(x, (4, 4), mode="nearest", align_corners=False)
    np.testing.assert_array_equal(y.array[0, 0], np.kron(x[0, 0], np.ones((2, 2))))


def test_as_strided():
    x = chainer.Variable(np.arange(4, dtype="f"))
    y = F.as_strided(x, (3, 2), (1, 1))
    y.grad = np.ones_like(y.array)
    y.backward()
    np.testing.assert_array_equal(y.array, [[0, 1], [1, 2], [2, 3]])
    np.testing.assert_array_equal(x.grad, [1, 2, 2, 1])


def test_maxout_with_initialisers_by_function():
    def weight(array):
        assert array.shape == (2, 3, 4)
        array[...] = np.arange(24).reshape(2, 3, 4)

    def bias(array):
        assert array.shape == (2, 3)
        array[...] = 1

    link = L.Maxout(4, 2, 3, initialW=weight, initial_bias=bias)
    x = np.ones((1, 4), "f")
    expected = (np.arange(24).reshape(2, 3, 4).sum(2) + 1).max(1)
    np.testing.assert_array_equal(link(x).array, [expected])


def test_categorical_log_prob_of_a_batch():
    p = np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], "f")
    y = distributions.Categorical(p=p).log_prob(np.array([0, 1, 1]))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.array, np.log([0.2, 0.5, 0.1]), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_sparse_matmul(dtype, batch):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, (2, *batch, 3, 3)).astype(dtype)
    y = F.sparse_matmul(chainer.utils.to_coo(a), b)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.array, a @ b)


def test_deconvolution_gradient_of_the_weight_alone():
    w = chainer.Parameter(np.ones((1, 1, 2, 2), "f"))
    y = F.deconvolution_2d(np.full((1, 1, 3, 3), 2, "f"), w, stride=2)
    F.sum(y).backward()
    np.testing.assert_array_equal(w.grad, np.full((1, 1, 2, 2), 18))


def test_debug_print_names_the_device():
    text = chainer.Variable(np.zeros(1, "f")).debug_print()
    assert "device: CPU" in text


def test_no_gpu_without_a_driver():
    if cuda.available:
        pytest.skip("this machine has a GPU")
    with pytest.raises(RuntimeError, match="CUDA environment is not correctly set up"):
        cuda.check_cuda_available()


@pytest.mark.parametrize("hip", [True, False])
def test_the_driver_is_looked_for(monkeypatch, hip):
    import ctypes
    import sys
    import types

    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    cuda_module = types.SimpleNamespace(runtime=types.SimpleNamespace(is_hip=hip))
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=cuda_module))
    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setattr(sys, "platform", "linux")
    if hip:
        runtime.check_cuda_driver()
    else:
        with pytest.raises(OSError, match="libcuda"):
            runtime.check_cuda_driver()


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")

    class Link(L.Linear):
        note = "none"

        def serialize(self, serializer):
            super().serialize(serializer)
            if isinstance(serializer, chainer.Deserializer):
                self.note = serializer("note", self.note)
                self.other = serializer("note", None)

    saved, loaded = Link(2, 3), Link(2, 3)
    path = str(tmp_path / "link.h5")
    serializers.save_hdf5(path, saved)
    with h5py.File(path, "a") as file:
        file["note"] = "grüße"
    serializers.load_hdf5(path, loaded)
    np.testing.assert_array_equal(saved.W.array, loaded.W.array)
    assert loaded.note == loaded.other[()] == "grüße"


def test_a_sequential_with_a_lambda_is_copied():
    net = chainer.Sequential(L.Linear(2, 3), lambda h: 2 * h, L.Linear(3, 1))
    other, x = copy.deepcopy([net, net])[1], np.ones((1, 2), "f")
    np.testing.assert_array_equal(other(x).array, net(x).array)
    other[0].W.array[...] = 0
    assert net[0].W.array.all() and next(iter(other.children())) is other[0]
