"""Compiles the CUDA source; the tests marked gpu run it."""

import numpy as np
import pytest

from chainer_mmix.mixing.kernels import mix_source

cupy = pytest.importorskip("cupy")
_kernel = pytest.importorskip("cupy._core._kernel")
_scalar = pytest.importorskip("cupy._core._scalar")
_carray = pytest.importorskip("cupy._core._carray")

ARRAY, INDEXER, SCALAR = 1, 2, 3  # the kinds of CuPy's _ArgInfo


def cuda_source(dtype, per_sample, contiguous):
    """What CuPy would give to NVRTC for these arguments."""
    x = np.dtype(dtype)
    w = np.promote_types(x, np.float32)
    kernel = cupy.ElementwiseKernel(*mix_source(per_sample, w.name))
    weight = w if per_sample else None  # CuPy has no dtype of a scalar here
    given = (x, np.dtype(np.int32), weight, weight, None)
    in_types, out_types, type_map = kernel._decide_params_type(given, (x,))

    def array(dtype):
        ndim = 1 if contiguous else 4
        return _kernel._ArgInfo(ARRAY, cupy.ndarray, dtype, ndim, contiguous, True)

    def scalar(dtype):
        return _kernel._ArgInfo(SCALAR, _scalar.CScalar, dtype, 0, True, True)

    weight = array if per_sample else scalar
    kinds = (array, array, weight, weight, scalar)
    infos = [kind(dtype) for kind, dtype in zip(kinds, in_types, strict=True)]
    infos.append(array(out_types[0]))
    ndim = 1 if contiguous else 4
    infos.append(_kernel._ArgInfo(INDEXER, _carray.Indexer, None, ndim, True, True))
    return _kernel._get_elementwise_kernel_code(
        tuple(infos),
        type_map,
        kernel.params,
        kernel.operation,
        kernel.name,
        kernel.preamble,
        **kernel.kwargs,
    )


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_mix_compiles(dtype, per_sample, contiguous, nvrtc):
    nvrtc(cuda_source(dtype, per_sample, contiguous), "mmix_mix")
