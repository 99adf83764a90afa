"""Keeps the memory of arrays with the process, in huge pages.

Each step of a training takes and frees the same arrays. The C library hands large ones
back to the system at once, which clears them anew, page by page; and it leaves arrays
below 4 MB, for which NumPy does not ask, in small pages, which the processor finds more
slowly. Here the heap is told to keep what it has, and to begin with a range for which
the system is asked for huge pages. They count as memory only once they are written to.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os

_MOST = (1 << 31) - 1  # mallopt takes a C int
_LEAST = 1 << 26
_HUGE = 1 << 21
# Parameters of mallopt, malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# What users say of the same, as glibc's manual names it.
_VARIABLES = "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_"
_TUNABLES = "trim_threshold", "mmap_threshold", "top_pad", "hugetlb"


@functools.cache
def keep_memory() -> None:
    """Sets glibc's heap up for the whole process, unless the environment says how.

    It does nothing with another C library, nor where memory is promised only as far
    as it is there.
    """
    if not (_is_glibc() and hasattr(mmap, "MADV_HUGEPAGE")) or _is_asked_for():
        return
    if _overcommit() == 2:
        return
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.mallopt(_M_TRIM_THRESHOLD, _MOST)
    libc.mallopt(_M_MMAP_THRESHOLD, _MOST)
    size = min(_MOST, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)
    while size >= _LEAST:
        if start := libc.malloc(size):
            first = -(-start // _HUGE) * _HUGE
            libc.madvise(first, start + size - first, mmap.MADV_HUGEPAGE)
            libc.free(start)
            return
        size //= 2  # There is a limit.


def _is_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, ValueError):  # Windows, another C library
        return False


def _is_asked_for() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return any(name in os.environ for name in _VARIABLES) or any(
        f"glibc.malloc.{name}" in tunables for name in _TUNABLES
    )


def _overcommit() -> int:
    try:
        with open("/proc/sys/vm/overcommit_memory") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
