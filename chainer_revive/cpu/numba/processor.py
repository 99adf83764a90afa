from __future__ import annotations

import functools
import os

_TELLING = ("vendor_id", "cpu family", "model", "stepping", "flags")


@functools.cache
def processor() -> dict[str, str]:
    """Returns what decides which code a compiler makes, as Linux names it on x86.

    It is empty on other systems.
    """
    try:
        with open("/proc/cpuinfo") as file:
            fields = {}
            for line in file:
                if not line.strip():  # Others follow.
                    break
                name, _, value = line.partition(":")
                fields[name.strip()] = value.strip()
    except OSError:
        return {}
    return {name: fields[name] for name in _TELLING if name in fields}


def lanes() -> int:
    """Returns how many float32 a vector has that suits the processor."""
    if any(os.environ.get(f"NUMBA_CPU_{name}") for name in ("NAME", "FEATURES")):
        return 8  # Numba does not compile for this one.
    if processor():
        return 16 if "avx512f" in processor().get("flags", "").split() else 8
    from llvmlite.binding import get_host_cpu_features

    return 16 if get_host_cpu_features().get("avx512f") else 8
