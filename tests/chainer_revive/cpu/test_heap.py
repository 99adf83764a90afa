import os
import subprocess
import sys
from pathlib import Path

import pytest

from chainer_revive.cpu import heap

pytestmark = pytest.mark.skipif(not heap._is_glibc(), reason="needs glibc")

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# Arrays as a step has them: pages that the system has to clear, and huge pages.
STEPS = """
import resource
import numpy as np
{before}
import chainer

def step():
    for size in 4 * (3 << 20, 10 << 20, 70 << 20):
        np.empty(size, np.uint8).fill(1)

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
with open("/proc/self/smaps_rollup") as file:
    (huge,) = (line.split()[1] for line in file if line.startswith("AnonHuge"))
print(faults, huge)
"""
LIMITED = "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))"


def run(before: str = "", **environ: str) -> tuple[int, int]:
    names = *heap._VARIABLES, "GLIBC_TUNABLES"
    environ = {k: v for k, v in os.environ.items() if k not in names} | environ
    environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STEPS.format(before=before)]
    result = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    faults, huge = map(int, result.stdout.split())
    return faults, huge


def test_a_step_finds_the_memory_of_the_last_one():
    faults, _ = run()
    assert faults < 100


def test_arrays_of_few_megabytes_lie_in_huge_pages():
    if not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text():
        pytest.skip("the system has none")
    _, huge = run()
    assert huge > 8 << 10  # KiB


@pytest.mark.parametrize(
    "environ",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"},
    ],
    ids=str,
)
def test_whoever_says_how_memory_is_kept_is_heard(environ):
    faults, _ = run(**environ)
    assert faults > 1000


def test_a_process_may_have_a_limit():
    faults, _ = run(LIMITED)
    assert faults < 100
