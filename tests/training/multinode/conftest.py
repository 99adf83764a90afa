import subprocess
import sys
from pathlib import Path

import pytest

MPIEXEC = Path(sys.executable).with_name("mpiexec")


@pytest.fixture(scope="session")
def mpiexec():
    """``mpiexec(n, *words)`` runs this Python in n ranks of one thread."""
    pytest.importorskip("mpi4py", reason="needs the extra mpi")
    if not MPIEXEC.exists():
        pytest.skip("needs the extra mpi")

    def run(n, *words, timeout=100):
        return subprocess.run(
            [
                *(MPIEXEC, "-n", str(n), "-genv", "OMP_NUM_THREADS", "1"),
                *("-genv", "PYTHONPATH", ":".join(sys.path)),
                *(sys.executable, *map(str, words)),
            ],
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
