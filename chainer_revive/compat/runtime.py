"""What patched code calls."""

from __future__ import annotations

import sys
import warnings

import numpy

_WIDE = {"f": numpy.float64, "i": numpy.int64, "u": numpy.int64}


def wide(value):
    """Widens a NumPy scalar or zero-dimensional array to 64 bits.

    NumPy 1 did so wherever one met a Python number, so sums and means of scalars were
    64-bit. Since NumPy 2 (NEP 50) they have the type of the scalar, and overflow.
    CuPy has never done so: its half precision is widened to float32, in which a sum
    over an epoch is good enough. Everything else (Python numbers, larger arrays) is
    returned as it is.
    """
    if isinstance(value, (numpy.generic, numpy.ndarray)):
        if value.ndim == 0 and value.dtype.itemsize < 8 and value.dtype.kind in _WIDE:
            return _WIDE[value.dtype.kind](value)
    elif _is_half_on_a_gpu(value):
        return value.astype(numpy.float32)
    return value


def _is_half_on_a_gpu(value) -> bool:
    from chainer.backends import cuda  # which imports this module

    return (
        isinstance(value, cuda.ndarray)
        and value.ndim == 0
        and value.dtype == numpy.float16
    )


def cast(value, dtype):
    """Casts a Python int as C does: -1 to an unsigned dtype is its largest value.

    NumPy 2 raises OverflowError where such an int is assigned to an unsigned array.
    """
    return numpy.asarray(value).astype(dtype)[()] if isinstance(value, int) else value


def hdf5_array(dataset) -> numpy.ndarray:
    """Reads an HDF5 dataset with strings as ``str``; h5py 3 would return bytes."""
    import h5py

    if h5py.check_string_dtype(dataset.dtype):
        dataset = dataset.asstr()
    return numpy.asarray(dataset[()])


def nccl():
    """Imports CuPy's NCCL, without the warning where it is not installed.

    Chainer imports it for one of its updaters, which says itself what it lacks.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cupy.cuda import nccl
    return nccl


def check_cuda_driver() -> None:
    """Raises OSError when the CUDA driver is missing.

    CuPy imports without one, and Chainer takes that for an available GPU. The library
    is loaded and not initialised: a process that has initialised CUDA cannot fork.
    """
    import ctypes

    import cupy

    if cupy.cuda.runtime.is_hip:
        return
    if sys.platform == "linux":
        ctypes.CDLL("libcuda.so.1")
    elif sys.platform == "win32":
        ctypes.CDLL("nvcuda.dll")


def send(cupy, array: numpy.ndarray):
    """Copies an array to the current GPU, so that it may be overwritten afterwards.

    CuPy takes a copy of what is not in pinned memory, and need not wait for it.
    """
    pinned = cupy.cuda.pinned_memory.is_memory_pinned(array.ctypes.data)
    return cupy.asarray(array, blocking=pinned)
