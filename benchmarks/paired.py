"""Times things side by side: in turns, so that a busy machine slows all alike."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable

import chainer
import numpy as np

from chainer_mmix.runs.record import device_name


def measure(candidates: dict[str, Callable[[], object]], repeats: int) -> dict:
    """Calls each candidate once to warm up, then in turns.

    Returns:
        dict: For each name, the list of its times in seconds, in order.
    """
    for call in candidates.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, call in candidates.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times


def report(title: str, times: dict, notes: dict | None = None) -> None:
    """Prints medians and quartiles, and the median ratio of each to the first."""
    print(f"\n{title}")
    base = next(iter(times.values()))
    for name, values in times.items():
        low, median, high = (1e3 * q for q in statistics.quantiles(values, n=4))
        ratio = statistics.median(v / b for v, b in zip(values, base, strict=True))
        print(
            f"  {name:<32} {median:10.3f} ms  (quartiles {low:.3f} to {high:.3f})"
            f"  ratio {ratio:.3f}" + (f"  {notes[name]}" if notes else "")
        )


def machine() -> str:
    """Describes where the figures come from."""
    name = device_name(chainer.get_device("@numpy"))
    return (
        f"{name}, {os.cpu_count()} cores; Python {platform.python_version()}, NumPy "
        f"{np.__version__}, Chainer {chainer.__version__}"
    )
