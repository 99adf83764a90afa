"""Launches the kernels on CuPy's arrays, in the current stream."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from threading import Lock

import cupy
import numpy as np

from chainer_revive.cuda import kernels
from chainer_revive.cuda.tensor import Tensor


class CudaLauncher:
    """The :class:`~chainer_revive.cuda.tensor.Launcher` for CuPy."""

    array_type = cupy.ndarray

    def update(self, rule: str, tensors: Sequence[Tensor], clip) -> None:
        rows, pieces = _upload(tensors)
        kernel = compiled(kernels.update_source(rule), "mmix_update")
        clip = np.uintp(0) if clip is None else clip
        _launch(kernel, len(pieces), rows, pieces, clip)

    def clip(self, tensors: Sequence[Tensor], threshold: float) -> cupy.ndarray:
        rows, pieces = _upload(tensors)
        squares = cupy.empty(len(pieces), np.float64)
        clip = cupy.empty((), np.float32)
        kernel = compiled(kernels.CLIP, "mmix_squares")
        _launch(kernel, len(pieces), rows, pieces, squares)
        kernel = compiled(kernels.CLIP, "mmix_clip")
        size, threshold = np.int32(len(pieces)), np.float32(threshold)
        _launch(kernel, 1, squares, size, threshold, clip)
        return clip

    def finite(self, arrays: Sequence[cupy.ndarray]) -> np.ndarray:
        rows, pieces = _upload([Tensor(None, array) for array in arrays])
        is_bad = cupy.zeros(len(arrays), np.int32)
        kernel = compiled(kernels.FINITE, "mmix_finite")
        _launch(kernel, len(pieces), rows, pieces, is_bad)
        return is_bad.get() == 0

    def one_block(self, source: str, name: str, block: tuple, *args) -> None:
        compiled(source, name)((1,), block, args)


def table(tensors: Sequence[Tensor]) -> np.ndarray:
    """Returns what the kernels know of the tensors, one ``kernels.TENSOR`` each."""

    def address(array) -> int:
        return 0 if array is None else array.data.ptr

    def row(t: Tensor) -> tuple:
        states = [*map(address, t.states), 0, 0][:2]
        rates = [*t.rates, *[0.0] * 6][:6]
        arrays = address(t.param), address(t.grad), *states, address(t.half)
        is_half = t.grad.dtype == np.float16
        factors = t.before, t.after, t.loss_scale
        return *arrays, t.grad.size, is_half, *factors, rates

    return np.array([row(t) for t in tensors], kernels.TENSOR)


def pieces_of(sizes: Sequence[int]) -> np.ndarray:
    """Returns (tensor, number of the piece) for each block, an int32 array (B, 2)."""
    counts = -(-np.array(sizes, np.int64) // kernels.PIECE)
    tensor = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(tensor)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([tensor, number], axis=1).astype(np.int32)


def _upload(tensors: Sequence[Tensor]) -> tuple[cupy.ndarray, cupy.ndarray]:
    sizes = tuple(t.grad.size for t in tensors)
    rows = cupy.asarray(table(tensors).view(np.int64))
    return rows, _pieces_on(cupy.cuda.Device().id, sizes)


@functools.lru_cache(maxsize=16)
def _pieces_on(device: int, sizes: tuple[int, ...]) -> cupy.ndarray:
    return cupy.asarray(pieces_of(sizes))


_compiling: dict[str, Lock] = defaultdict(Lock)


@functools.cache
def compiled(source: str, name: str) -> cupy.RawKernel:
    """Returns a kernel that is compiled for the current GPU."""
    kernel = cupy.RawKernel(source, name)
    with _compiling[source]:  # Another thread may do it, and CuPy keeps the result.
        kernel.compile()
    return kernel


def _launch(kernel: cupy.RawKernel, n_block: int, *args) -> None:
    kernel((n_block,), (kernels.THREADS,), args)
