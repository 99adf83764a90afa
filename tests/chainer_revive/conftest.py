"""Runs code in a fresh interpreter."""

import os
import subprocess
import sys

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
