import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

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
    for a in [np.empty(size, np.uint8) for size in 4 * {sizes}]:
        a[: 3 << 20] = 1

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
with open("/proc/self/smaps_rollup") as file:
    (huge,) = (line.split()[1] for line in file if line.startswith("AnonHuge"))
print(faults, huge)
{after}
"""
SIZES = (3 << 20, 10 << 20, 70 << 20)
LIMITED = "resource.setrlimit(resource.RLIMIT_{0}, ({1} << 30, {1} << 30))"


def run(before="", after="", sizes=SIZES, **environ: str) -> tuple[int, int]:
    names = *heap._VARIABLES, "GLIBC_TUNABLES"
    environ = {k: v for k, v in os.environ.items() if k not in names} | environ
    environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    steps = STEPS.format(before=before, after=after, sizes=sizes)
    command = [sys.executable, "-c", steps]
    result = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    faults, huge = map(int, result.stdout.split())
    return faults, huge


def test_a_step_finds_the_memory_of_the_last_one():
    faults, _ = run()
    assert faults < 100


def test_a_step_may_have_more_than_glibc_keeps_by_a_threshold():
    faults, _ = run(sizes=(3 << 20, 700 << 20))
    assert faults < 100


def test_arrays_that_numpy_leaves_in_small_pages_lie_in_huge_ones():
    if not HUGE_PAGES.exists() or "[madvise]" not in HUGE_PAGES.read_text():
        pytest.skip("the system has none, or gives them to all")
    _, huge = run(sizes=(3 << 20, 3 << 20))
    assert huge > 1 << 10  # KiB


@pytest.mark.parametrize(
    "environ",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"},
        {"MALLOC_PERTURB_": "85"},
    ],
    ids=str,
)
def test_whoever_says_how_memory_is_kept_is_heard(environ):
    faults, _ = run(**environ)
    assert faults > 1000


@pytest.mark.parametrize("limit", ["AS", "DATA"])
def test_a_process_with_a_limit_keeps_most_of_it_for_itself(limit):
    after = "import mmap; mmap.mmap(-1, 1 << 30)"
    faults, _ = run(LIMITED.format(limit, 4), after=after)
    assert faults < 100


def test_a_heap_that_may_not_keep_large_arrays_stays_as_it_is():
    """An older glibc refuses, and adapts to what it sees if nothing else is set."""
    library = mock.Mock()
    library.mallopt.return_value = 0
    with (
        mock.patch.object(heap.ctypes, "CDLL", return_value=library),
        mock.patch.object(heap, "_address"),
        mock.patch.dict(os.environ),
    ):
        for name in (*heap._VARIABLES, "GLIBC_TUNABLES"):
            os.environ.pop(name, None)
        heap.keep_memory.__wrapped__()
    library.mallopt.assert_called_once_with(heap._M_MMAP_THRESHOLD, mock.ANY)


def test_another_allocator_is_left_alone():
    ours, theirs = mock.Mock(), mock.Mock()
    with (
        mock.patch.object(heap.ctypes, "CDLL", side_effect=[ours, theirs]),
        mock.patch.object(heap, "_address", side_effect=[1, 2]),
    ):
        heap.keep_memory.__wrapped__()
    ours.mallopt.assert_not_called()
