import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def in_ranks():
    """``in_ranks(n, *words)`` runs Python with these words in n ranks of one thread."""
    pytest.importorskip("mpi4py", reason="needs the extra mpi")
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        pytest.skip("needs the extra mpi")

    def run(n, *words, timeout=100):
        start = [mpiexec, "-n", str(n)] if n else []
        return subprocess.run(
            [*start, sys.executable, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
        )

    return run
