"""The check itself, with CuPy, NVRTC and cuDNN; only what CUDA is to do is left out."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from chainer_revive.gpu_check import run

DOUBLE = Path(__file__).parents[1] / "doubles" / "idle_gpu.py"
MODULES = ["chainer_mmix.gpu_check"]


def is_installed():
    try:
        version("nvidia-cudnn-frontend")
        return int(version("cupy-cuda13x").partition(".")[0]) >= 14
    except PackageNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not is_installed(), reason="needs the extra cuda13")
def test_the_check_calls_what_cupy_and_cudnn_have(driver, tmp_path):
    environ = {
        "LD_LIBRARY_PATH": str(driver),
        "XDG_CACHE_HOME": str(tmp_path),
        "CUPY_CACHE_DIR": str(tmp_path / "cupy"),
        "CHAINER_MMIX_CUDA": "0",
        "CHAINER_MMIX_CUDNN": "0",
    }
    process = subprocess.run(
        [sys.executable, DOUBLE, *MODULES],
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
    assert list(units) == [unit.name for unit in run.units(MODULES)]
    errors = {r["error"] for results in units.values() for r in results}
    assert errors <= {None, "NaN or infinity"}
    # What is not compiled ahead is of the first step of a graph.
    assert len(found["kernels"]) - found["kernels ahead"] <= 3 < found["kernels ahead"]
