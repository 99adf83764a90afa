"""Stands in for ``onnx.mapping``, which onnx_chainer uses and ONNX 1.19 removed."""

from __future__ import annotations

import numpy as np


class _TensorTypes:
    """The number of ONNX's type for each dtype."""

    def __getitem__(self, dtype: np.dtype) -> int:
        from onnx import helper

        return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


NP_TYPE_TO_TENSOR_TYPE = _TensorTypes()


def available(error: ImportError) -> bool:
    """Returns ``False`` if it is ONNX that is missing, and raises another error."""
    if error.name != "onnx":
        raise error
    return False
