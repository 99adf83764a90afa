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
_HUGE = 1 << 21
# Parameters of mallopt, malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = -1
# What users say of the same, as glibc's manual names it. The last one has all memory
# that is taken written to, the range included.
_VARIABLES = (
    *("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_"),
    "MALLOC_PERTURB_",
)
_TUNABLES = "trim_threshold", "mmap_threshold", "top_pad", "hugetlb", "perturb"


@functools.cache
def keep_memory() -> None:
    """Sets glibc's heap up for the whole process, unless the environment says how.

    It does nothing with another C library or allocator, nor with a glibc that takes all
    arrays from 32 MB on from the system, nor where memory is promised only as far as it
    is there.
    """
    if not (_is_glibc() and hasattr(mmap, "MADV_HUGEPAGE")) or _is_asked_for():
        return
    libc = ctypes.CDLL(None)
    if _overcommit() == 2 or _address(libc) != _address(ctypes.CDLL("libc.so.6")):
        return
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # Older versions refuse. Once any of these is set, glibc adapts none by itself.
    if not libc.mallopt(_M_MMAP_THRESHOLD, _MOST):
        return
    libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    size = min(_MOST - _HUGE, _available() // 4)  # below the threshold
    if start := libc.malloc(size):
        first = -(-start // _HUGE) * _HUGE
        libc.madvise(first, start + size - first, mmap.MADV_HUGEPAGE)
        libc.free(start)


def give_back() -> None:
    """Gives memory that is free back to the system, with glibc."""
    if _is_glibc():
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _address(library: ctypes.CDLL) -> int | None:
    return ctypes.cast(library.malloc, ctypes.c_void_p).value


def _available() -> int:
    """Returns how many bytes the machine has, or the process may have."""
    import resource

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = map(resource.getrlimit, (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    soft = [limit for limit, _ in limits if limit != resource.RLIM_INFINITY]
    return min([memory, *soft])


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
