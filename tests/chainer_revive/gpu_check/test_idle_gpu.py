"""The check with CuPy, NVRTC and cuDNN 9; only what CUDA is to do is left out."""

import json
import os
import subprocess
import sys

import idle_gpu
import pytest

from chainer_revive.gpu_check import run

MAJOR = idle_gpu.cupy_major()
MODULES = ["chainer_mmix.gpu_check"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(MAJOR is None, reason="needs the extra cuda12 or cuda13")
def test_the_check_calls_what_cupy_and_cudnn_have(driver, tmp_path):
    environ = {
        "LD_LIBRARY_PATH": str(driver),
        "XDG_CACHE_HOME": str(tmp_path),
        "CUPY_CACHE_DIR": str(tmp_path / "cupy"),
        "CHAINER_MMIX_CUDA": "0",
        "CHAINER_MMIX_CUDNN": "0",
    }
    process = subprocess.run(
        [sys.executable, idle_gpu.__file__, *MODULES],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    units = {
        line["unit"]: line["results"]
        for line in map(json.loads, found["lines"])
        if "unit" in line
    }
    layers = {None, "cuda", "capture", "cudnn" if MAJOR == 14 else None}
    names = [unit.name for unit in run.units(MODULES) if unit.layer in layers]
    assert list(units) == names
    errors = {r["error"] for results in units.values() for r in results}
    assert errors <= {None, "NaN or infinity"}
    # What is not compiled ahead is of the first step of a graph.
    assert len(found["kernels"]) - found["kernels ahead"] <= 3 < found["kernels ahead"]
