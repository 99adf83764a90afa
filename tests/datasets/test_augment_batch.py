"""augment_batch against Augment, which uses Pillow; its kernel against both, as C++."""

import ctypes
import random
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainer_mmix.datasets import Augment
from chainer_mmix.datasets.augment_batch import (
    augment_batch,
    kernel_source,
    make_table,
)

SHAPES = [(1, 8, 8), (3, 16, 16), (2, 5, 9), (1, 1, 1)]


def both(augment, images, indices, seed):
    """Returns the images one by one, and what the batch is made of."""
    random.seed(seed)
    expected = np.stack([augment((images[i], 0))[0] for i in indices])
    following = random.random()
    random.seed(seed)
    draws = [augment.draw(images.shape[1:], random) for _ in indices]
    assert random.random() == following
    return expected, make_table(indices, draws, augment.padding, images.shape[2:])


def make_images(shape, n=7):
    return np.random.default_rng(0).normal(size=(n, *shape)).astype(np.float32)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    padding=st.integers(0, 10),
    angle=st.sampled_from([0.0, 10.0, 170.0]),
    flip=st.booleans(),
    indices=st.lists(st.integers(0, 6), min_size=1, max_size=9),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_batch_is_that_of_the_examples(shape, padding, angle, flip, indices, seed):
    images = make_images(shape)
    before = images.copy()
    augment = Augment(padding, angle, flip)
    expected, table = both(augment, images, indices, seed)
    actual = augment_batch(images, table, np.dtype(np.float32))
    assert actual.dtype == np.float32
    if angle:  # what Pillow rounds may depend on how it was built
        np.testing.assert_allclose(actual, expected, 0, 1e-6)
    else:
        np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(images, before)


def test_half_precision_is_rounded_from_float32():
    images = make_images((3, 8, 8))
    _, table = both(Augment(2, flip=True), images, range(7), 0)
    float32 = augment_batch(images, table, np.dtype(np.float32))
    float16 = augment_batch(images, table, np.dtype(np.float16))
    assert float16.dtype == np.float16
    np.testing.assert_array_equal(float16, float32.astype(np.float16))


@pytest.fixture
def emulated(tmp_path):
    """``emulated(images, table, dtype)`` runs the kernel, compiled as C++, on a CPU."""
    if not shutil.which("g++"):
        pytest.skip("needs g++")

    def run(images, table, dtype):
        *_, operation, _ = kernel_source(*images.shape[1:])
        cpp_type = {"float32": "float", "float16": "_Float16"}[dtype]
        code = tmp_path / "kernel.cpp"
        code.write_text(f"""
#include <cmath>
#include <cstddef>
typedef {cpp_type} T;
extern "C" void run(const float* images, const double* table, T* y, ptrdiff_t size) {{
    for (ptrdiff_t i = 0; i < size; ++i) {{
        T& z = y[i];
        {operation}
    }}
}}""")
        options = ["-std=c++20", "-O1", "-ffp-contract=off", "-shared", "-fPIC"]
        library = tmp_path / f"{dtype}.so"
        subprocess.run(["g++", *options, code, "-o", library], check=True)
        y = np.empty((len(table), *images.shape[1:]), dtype)
        addresses = (ctypes.c_void_p(array.ctypes.data) for array in (images, table, y))
        ctypes.CDLL(library).run(*addresses, ctypes.c_ssize_t(y.size))
        return y

    return run


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_as_cpp(shape, dtype, emulated):
    images = make_images(shape)
    indices = np.random.default_rng(1).integers(0, 7, 100)
    _, table = both(Augment(2, 40.0, True), images, indices, 5)
    expected = augment_batch(images, table, np.dtype(dtype))
    np.testing.assert_array_equal(emulated(images, table, dtype), expected)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_kernel_compiles(dtype, elementwise_source, nvrtc):
    cupy = pytest.importorskip("cupy")
    kernel = cupy.ElementwiseKernel(
        *kernel_source(3, 32, 32), options=("--fmad=false",)
    )
    nvrtc(elementwise_source(kernel, ["float32", "float64"], [dtype]), "mmix_augment")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_on_a_gpu(dtype):
    cupy = pytest.importorskip("cupy")
    images = make_images((3, 32, 32))
    _, table = both(Augment(4, flip=True), images, range(7), 0)
    expected = augment_batch(images, table, np.dtype(dtype))
    actual = augment_batch(cupy.array(images), cupy.array(table), np.dtype(dtype))
    np.testing.assert_array_equal(actual.get(), expected)
