"""Estimates, without a GPU, how long the first check of one takes.

The check runs as on an H100, with CuPy 14 and cuDNN 9, but for the calls of CUDA, which
do nothing. What it computes meanwhile is measured here, in seconds of a processor; the
rest is assumed. Needs a C compiler and the extra cuda13.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests" / "chainer_revive"
CONTEXT = 0.5  # seconds that CUDA's start and cuDNN's handles may take


def check(folder: Path) -> dict:
    """Checks on a GPU that computes nothing, with its caches in a folder."""
    environ = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "XDG_CACHE_HOME": str(folder),
        "CUPY_CACHE_DIR": str(folder / "cupy"),
        "CHAINER_MMIX_CUDA": "0",
        "CHAINER_MMIX_CUDNN": "0",
    }
    command = [sys.executable, TESTS / "doubles" / "idle_gpu.py"]
    command += ["chainer_mmix.gpu_check"]
    output = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True)
    return json.loads(output.stdout)


def main() -> None:
    compiler = shutil.which("cc") or sys.exit("there is no C compiler, cc")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library, stub = folder / "libcuda.so.1", TESTS / "cudnn" / "libcuda_stub.c"
        options = "-shared", "-fPIC", f"-Wl,-soname,{library.name}"
        subprocess.run([compiler, *options, "-o", library, stub], check=True)
        first, second = check(folder), check(folder)
    n_kernel, n_plan = len(first["kernels"]), len(first["plans"])
    n_unit = sum('"unit"' in line for line in first["lines"])
    print(f"{n_unit} functions; seconds of a processor, measured:")
    print(f"{first['imports']:6.2f}  imports")
    print(f"{first['ahead']:6.2f}  compilation ahead, in threads, of which")
    print(f"{sum(first['kernels']):6.2f}    {n_kernel} kernels by NVRTC")
    print(f"{sum(first['plans']):6.2f}    {n_plan} plans by cuDNN, some from the disk")
    print(f"{first['check']:6.2f}  the check itself")
    print(f"assumed: {CONTEXT} s for CUDA's start, and no time on the GPU")
    longest = max(first["kernels"] + first["plans"])
    for n in (1, 2, 4, 8):
        ahead = max(longest, first["ahead"] / n)
        total = first["imports"] + CONTEXT + ahead + first["check"]
        print(f"the first check, with {n} free processors: {total:.1f} s")
    total = sum(second[part] for part in ("imports", "ahead", "check")) + CONTEXT
    print(f"one that finds all compiled, with one: {total:.1f} s")


if __name__ == "__main__":
    main()
