"""Runs code in a fresh interpreter, and compiles libraries for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE / "doubles"))


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


@pytest.fixture(scope="session")
def compile_library():
    """``compile_library(path, source)`` makes a shared library of its name."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler")

    def run(path, source):
        name = f"-Wl,-soname,{path.name}"
        command = [compiler, "-shared", "-fPIC", name, "-o", path, source]
        subprocess.run(command, check=True)

    return run


@pytest.fixture(scope="session")
def driver(tmp_path_factory, compile_library):
    """A folder with a libcuda that only answers what cuDNN asks while it plans."""
    folder = tmp_path_factory.mktemp("driver")
    compile_library(folder / "libcuda.so.1", HERE / "cudnn" / "libcuda_stub.c")
    return folder
