"""Linear layers that can be captured: CuPy calls no cuBLAS while a stream captures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import chainer
import numpy as np

from chainer_revive import registry
from chainer_revive.explain import declined

TILE = 16
_DTYPES = "it is for matrices of one dtype, float16 or float32"

# With the strides of both matrices, in elements; sums are in float32.
SOURCE = f"""
#include <cuda_fp16.h>
template <typename T> __device__ void matmul(
        const T* a, const T* b, T* c, int rows, int columns, int depth,
        long long a0, long long a1, long long b0, long long b1) {{
    __shared__ float part_a[{TILE}][{TILE} + 1], part_b[{TILE}][{TILE} + 1];
    const int x = threadIdx.x, y = threadIdx.y;
    const long long column = blockIdx.x * {TILE} + x, row = blockIdx.y * {TILE} + y;
    float sum = 0;
    for (int start = 0; start < depth; start += {TILE}) {{
        const int from_a = start + x, from_b = start + y;
        part_a[y][x] = row < rows && from_a < depth
            ? static_cast<float>(a[row * a0 + from_a * a1]) : 0;
        part_b[y][x] = column < columns && from_b < depth
            ? static_cast<float>(b[from_b * b0 + column * b1]) : 0;
        __syncthreads();
        for (int k = 0; k < {TILE}; ++k) sum += part_a[y][k] * part_b[k][x];
        __syncthreads();
    }}
    if (row < rows && column < columns)
        c[row * columns + column] = static_cast<T>(sum);
}}
#define KERNEL(name, T) extern "C" __global__ void name( \\
        const T* a, const T* b, T* c, int rows, int columns, int depth, \\
        long long a0, long long a1, long long b0, long long b1) {{ \\
    matmul<T>(a, b, c, rows, columns, depth, a0, a1, b0, b1); \\
}}
KERNEL(mmix_matmul_float32, float)
KERNEL(mmix_matmul_float16, __half)
"""


def matmul(a, b):
    """Returns ``a @ b``, of CuPy arrays of one dtype, float32 or float16."""
    import cupy

    from chainer_revive.cuda.launcher import compiled

    (rows, depth), columns = a.shape, b.shape[1]
    c = cupy.empty((rows, columns), a.dtype)
    if c.size:
        grid = -(-columns // TILE), -(-rows // TILE)
        sizes = map(np.int32, (rows, columns, depth))
        strides = [np.int64(s // m.itemsize) for m in (a, b) for s in m.strides]
        kernel = compiled(SOURCE, f"mmix_matmul_{a.dtype.name}")
        kernel(grid, (TILE, TILE), (a, b, c, *sizes, *strides))
    return c


_multiply = matmul


@contextlib.contextmanager
def capturable(matmul: Callable = matmul) -> Iterator[None]:
    """Has linear layers compute without cuBLAS, in float32 and float16.

    Args:
        matmul (callable): Multiplies two matrices.
    """
    global _multiply
    before, _multiply = _multiply, matmul
    try:
        with registry.switched_on("capture"):
            yield
    finally:
        _multiply = before


def forward(self, inputs):
    """For ``LinearFunction``."""
    x, w, *b = inputs
    if not _covers(x, w):
        return declined(_DTYPES)
    y = _product(self, x, w.T)
    for bias in b:
        y += bias
    return (y,)


def gradient_x(self, inputs):
    """For ``LinearGradData``."""
    w, gy = inputs
    return (_product(self, gy, w),) if _covers(w, gy) else declined(_DTYPES)


def gradient_w(self, inputs):
    """For ``LinearGradWeight``."""
    x, gy = inputs
    if not _covers(x, gy) or self._w_dtype != x.dtype:
        return declined(_DTYPES)
    return (_product(self, gy.T, x),)


def _product(self, a, b):
    self._config_use_ideep = chainer.config.use_ideep
    self.retain_inputs((0, 1))
    return _multiply(a, b)


def _covers(a, b) -> bool:
    return a.dtype == b.dtype and a.dtype in (np.float16, np.float32)
