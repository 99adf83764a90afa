"""A training step through each path of ``chainer_revive.cpu``, and PyTorch.

Each candidate has a process of its own, so that their threads do not meet and each has
a peak of memory; they run in turns.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from importlib.util import find_spec
from pathlib import Path

import chainer
import numpy as np
from paired import report

import chainer_revive
from chainer_mmix import ManifoldMixupClassifier, models

CANDIDATES = {
    "Chainer's own code": ("chainer", False),
    "NumPy": ("numpy", False),
    "NumPy, mixing": ("numpy", True),
    "Numba": ("numba", False),
    "Numba, mixing": ("numba", True),
    "Numba, direct sums": ("direct sums", False),
    "PyTorch": ("torch", False),
    "PyTorch, channels last": ("torch, channels last", False),
}
NEEDED = {
    "numba": "numba",
    "direct sums": "numba",
    "torch": "torch",
    "torch, channels last": "torch",
}
# Seconds after which the threads of a process have stopped to wait by spinning.
PAUSE = 0.3


def step(path: str, mixup: bool, network: str, shape: tuple[int, ...]):
    np.random.seed(0)
    x = np.random.rand(*shape).astype(np.float32)
    t = np.random.randint(0, 10, len(x)).astype(np.int32)
    library, _, option = path.partition(", ")
    if library == "torch":
        import torch_models

        return torch_models.step(network, x, t, bool(option))
    if path == "direct sums":  # instead of Winograd's
        path = "numba"
        chainer.global_config.winograd = False
    chainer_revive.use(cpu=path)
    model = ManifoldMixupClassifier(getattr(models, network)(10), mixup, seed=0)
    optimizer = chainer.optimizers.MomentumSGD(1e-3).setup(model)
    return lambda: optimizer.update(model, x, t)


def work(connection, *setting) -> None:
    """Makes as many steps as it is told to, and says how long one took."""
    call = step(*setting)
    while steps := connection.recv():
        start = time.perf_counter()
        for _ in range(steps):
            call()
        connection.send((time.perf_counter() - start) / steps)
    connection.send(f"peak of memory {peak_of_memory() / 1024:.0f} MiB")


def peak_of_memory() -> int:
    """Returns the largest memory of this process, in KiB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss begins with that of the parent
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def compare(network: str, shape: tuple[int, ...], repeats: int, steps: int) -> None:
    candidates = {
        name: (path, mixup)
        for name, (path, mixup) in CANDIDATES.items()
        if find_spec(NEEDED.get(path, "chainer"))
    }
    context = multiprocessing.get_context("spawn")
    ends = {}
    for name, setting in candidates.items():
        ends[name], end = context.Pipe()
        arguments = end, *setting, network, shape
        context.Process(target=work, args=arguments, daemon=True).start()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(repeats + 1):
        for name, end in ends.items():
            end.send(steps if repeat else 2)  # to warm up
            seconds = end.recv()
            if repeat:
                times[name].append(seconds)
            time.sleep(PAUSE)
    for end in ends.values():
        end.send(0)
    peaks = {name: end.recv() for name, end in ends.items()}
    report(f"Training step on a CPU, {network}, input {shape}", times, peaks)


def main() -> None:
    compare("ResNet50", (64, 3, 32, 32), repeats=9, steps=1)
    compare("PreActResNet18", (32, 3, 32, 32), repeats=5, steps=1)
    compare("WideResNet28_10", (8, 3, 32, 32), repeats=5, steps=1)
    compare("CNN", (50, 1, 28, 28), repeats=15, steps=2)
    compare("CNN", (50, 1, 8, 8), repeats=15, steps=10)
    compare("CNN", (1, 1, 8, 8), repeats=25, steps=20)


if __name__ == "__main__":
    main()
