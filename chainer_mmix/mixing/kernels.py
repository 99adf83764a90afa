"""Mixing in one pass: a CuPy kernel, and compiled loops for a CPU."""

from __future__ import annotations

import numpy as np
from chainer.backends import cuda

from chainer_revive.cpu import compiled, steps
from chainer_revive.cpu.layout import covered, is_channels_last

_C_TYPES = {"float32": "float", "float64": "double"}


def mix_source(per_sample: bool, dtype: str) -> tuple[str, str, str, str]:
    """Returns the arguments that make the mixing kernel of an ElementwiseKernel.

    Args:
        per_sample (bool): Whether each sample has weights of its own.
        dtype (str): The weights' dtype, named because CuPy cannot tell that of scalars:
            float32 or better, so that half precision is rounded once.
    """
    raw, at = ("raw ", "[n]") if per_sample else ("", "")
    c = _C_TYPES[dtype]
    operation = f"""
        ptrdiff_t n = i / inner;
        ptrdiff_t partner = i + (perm[n] - n) * inner;
        y = static_cast<T>(
            a{at} * static_cast<{c}>(x[i]) + b{at} * static_cast<{c}>(x[partner]));
    """
    return (
        f"raw T x, raw int32 perm, {raw}{dtype} a, {raw}{dtype} b, int64 inner",
        "T y",
        operation,
        "mmix_mix_per_sample" if per_sample else "mmix_mix",
    )


def mix(x, a, b, perm):
    """``a[n] * x[n] + b[n] * x[perm[n]]`` on CuPy arrays, with the strides of x.

    Args:
        x (cupy.ndarray): Float array of shape (N, ...).
        a, b: NumPy scalars, or CuPy arrays of shape (N,), all of one float dtype.
        perm (cupy.ndarray): int32 array of shape (N,).
    """
    y = cuda.cupy.empty_like(x)
    if x.size:
        kernel = cuda.elementwise(*mix_source(a.ndim > 0, a.dtype.name))
        kernel(x, perm, a, b, x.size // len(x), y)
    return y


def mix_plainly(x, a, b, perm):
    """Computes the same as :func:`mix` with CuPy's own functions."""
    column = (-1,) + (1,) * (x.ndim - 1) if a.ndim else ()
    y = a.reshape(column) * x + b.reshape(column) * x[perm]
    return y.astype(x.dtype, copy=False)


def mix_on_cpu(x: np.ndarray, a, b, perm: np.ndarray):
    """``a[n] * x[n] + b[n] * x[perm[n]]`` on NumPy arrays, with the strides of x.

    Args:
        x (array): Float array of shape (N, ...).
        a, b: Numbers, or arrays of shape (N,).
        perm (array): Integers of shape (N,).

    Returns:
        array: ``NotImplemented`` without Numba, for other dtypes than float32, and for
        arrays with gaps.
    """
    if not covered(x):
        return NotImplemented
    is_dense = x.flags.c_contiguous or (x.ndim > 1 and is_channels_last(x))
    if not is_dense or not compiled.loops(x.dtype):
        return NotImplemented
    from chainer_mmix.mixing import loops

    y = np.empty_like(x)
    weights = np.empty((2, len(x)), x.dtype)
    steps.do(_set_weights, weights, a, b)
    loops.mix(x, weights, steps.contiguous(perm, np.int64), y)
    return y


def _set_weights(weights, a, b) -> None:
    weights[0], weights[1] = a, b
