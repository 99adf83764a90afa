"""Runs code in a fresh interpreter."""

import os
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture
def python(tmp_path):
    """``python(code)`` runs code in a new process and returns what it printed."""

    def run(code, *options, fails=False, **environ):
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        env = {**env, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **environ}
        script = tmp_path / "script.py"
        script.write_text(code)
        process = subprocess.run(
            [sys.executable, *options, str(script)],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (process.returncode != 0) == fails, process.stdout + process.stderr
        return process.stderr if fails else process.stdout

    return run


@pytest.fixture
def elementwise_source():
    """Returns what CuPy would give to NVRTC for an ElementwiseKernel and arrays."""
    cupy = pytest.importorskip("cupy")
    from cupy._core import _carray, _kernel

    def source(kernel, inputs, outputs=()):
        inputs, outputs = ([np.dtype(t) for t in ts] for ts in (inputs, outputs))
        types = kernel._decide_params_type(tuple(inputs), tuple(outputs))
        arrays = [
            _kernel._ArgInfo(1, cupy.ndarray, dtype, 1, True, True)
            for dtype in (*types[0], *types[1])
        ]
        size = _kernel._ArgInfo(2, _carray.Indexer, None, 1, True, True)
        return _kernel._get_elementwise_kernel_code(
            (*arrays, size),
            types[2],
            kernel.params,
            kernel.operation,
            kernel.name,
            kernel.preamble,
            **kernel.kwargs,
        )

    return source
