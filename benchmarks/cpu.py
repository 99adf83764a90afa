"""A training step, and an evaluation, through each path of ``chainer_revive.cpu``, and
through PyTorch.

Each candidate has a process of its own, so that their threads do not meet and each has
a peak of memory; they run in turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import chainer
import numpy as np
from paired import machine, report

import chainer_revive
from chainer_mmix import ManifoldMixupClassifier, models
from chainer_mmix.training import GraphUpdater
from chainer_mmix.training.evaluation_graphs import EvaluationGraphs

TRAINING = {
    "Chainer's own code": ("chainer", False),
    "NumPy": ("numpy", False),
    "NumPy, mixing": ("numpy", True),
    "Numba": ("numba", False),
    "Numba, mixing": ("numba", True),
    "Numba, direct sums": ("numba, direct sums", False),
    "Numba, replayed": ("numba, replayed", False),
    "Numba, replayed, F(4x4)": ("numba, replayed F(4x4)", False),
    "PyTorch": ("torch", False),
    "PyTorch, channels last": ("torch, channels last", False),
    "PyTorch, compiled": ("torch, compiled", False),
}
EVALUATION = {
    "Chainer's own code": ("chainer",),
    "NumPy": ("numpy",),
    "Numba": ("numba",),
    "Numba, replayed": ("numba, replayed",),
    "Numba, replayed, F(4x4)": ("numba, replayed F(4x4)",),
    "PyTorch": ("torch",),
    "PyTorch, channels last": ("torch, channels last",),
    "PyTorch, folded": ("torch, folded",),
    "PyTorch, compiled": ("torch, compiled",),
}
# What keeps Numba, OpenBLAS, PyTorch, oneDNN and MKL from AVX-512.
AVX2 = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "",
    "OPENBLAS_CORETYPE": "Haswell",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
# Seconds after which the threads of a process have stopped to wait by spinning.
PAUSE = 0.3


def step(network: str, shape: tuple[int, ...], path: str, mixup: bool):
    """Returns a training step."""
    x, t = batch(shape)
    library, _, option = path.partition(", ")
    if library == "torch":
        import torch_models

        return torch_models.step(network, x, t, option)
    model = classifier(network, library, option, mixup)
    optimizer = chainer.optimizers.MomentumSGD(1e-3).setup(model)
    if not option.startswith("replayed"):
        return lambda: optimizer.update(model, x, t)
    iterator = chainer.iterators.SerialIterator([0], 1)
    updater = GraphUpdater(iterator, optimizer, converter=lambda batch, device: (x, t))
    for _ in range(updater.n_warmup + 2):  # until it only replays
        updater.update()
    if updater.reason is not None:
        raise RuntimeError(updater.reason)
    return updater.update


def evaluation(network: str, shape: tuple[int, ...], path: str):
    """Returns an evaluation of a batch, as ``chainer.training.extensions.Evaluator``
    makes it.
    """
    x, t = batch(shape)
    library, _, option = path.partition(", ")
    if library == "torch":
        import torch_models

        return torch_models.evaluation(network, x, t, option)
    model = classifier(network, library, option)
    model.cleargrads()  # PyTorch's has none either.

    def call():
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            return model(x, t).array

    if not option.startswith("replayed"):
        return call
    call()
    graphs, reporter = EvaluationGraphs(model), chainer.Reporter()
    reporter.add_observer("main", model)

    def report():
        with (
            chainer.using_config("train", False),
            chainer.no_backprop_mode(),
            reporter.scope({}),
        ):
            return graphs.report(model, (x, t), {}) or model(x, t)

    for _ in range(6):  # until it only replays
        report()
    if report() is not True:
        raise RuntimeError(graphs.reason)
    return report


def batch(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    np.random.seed(0)
    x = np.random.rand(*shape).astype(np.float32)
    return x, np.random.randint(0, 10, len(x)).astype(np.int32)


def classifier(network: str, library: str, option: str, mixup: bool = True):
    chainer_revive.use(cpu=library)
    if option == "direct sums":  # instead of Winograd's
        chainer.global_config.winograd = False
    if "F(4x4)" in option:
        chainer.global_config.winograd = 4
    return ManifoldMixupClassifier(getattr(models, network)(10), mixup, seed=0)


def work(connection, make: Callable, *setting) -> None:
    """Makes as many steps as it is told to, and says how long one took."""
    try:
        call = make(*setting)
        call()
    except Exception as error:
        text, *_ = f"{error}".strip().splitlines() or ["no message"]
        connection.send(f"{type(error).__name__}: {text}")
        return
    connection.send("")
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


def measure(
    make: Callable,
    candidates: dict[str, tuple],
    network: str,
    shape: tuple[int, ...],
    repeats: int,
    steps: int = 1,
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Returns the seconds of each candidate's steps, and its peak of memory.

    What is not installed is left out; what fails is left out with a word.
    """
    context = multiprocessing.get_context("spawn")
    ends = {}
    for name, setting in candidates.items():
        library = setting[0].partition(", ")[0]
        if library in ("numba", "torch") and not find_spec(library):
            continue
        ends[name], end = context.Pipe()
        arguments = end, make, network, shape, *setting
        context.Process(target=work, args=arguments, daemon=True).start()
        if failure := ends[name].recv():
            print(f"{name} is left out: {failure}", flush=True)
            del ends[name]
    times: dict[str, list[float]] = {name: [] for name in ends}
    for repeat in range(repeats + 1):
        for name, end in ends.items():
            end.send(steps if repeat else 2)  # to warm up
            seconds = end.recv()
            if repeat:
                times[name].append(seconds)
            time.sleep(PAUSE)
    for end in ends.values():
        end.send(0)
    return times, {name: end.recv() for name, end in ends.items()}


def compare(network: str, shape: tuple[int, ...], repeats: int, steps: int = 1) -> None:
    found = measure(step, TRAINING, network, shape, repeats, steps)
    report(f"Training step on a CPU, {network}, input {shape}", *found)


def compare_evaluation(network: str, shape: tuple[int, ...], repeats: int) -> None:
    found = measure(evaluation, EVALUATION, network, shape, repeats)
    report(f"Evaluation on a CPU, {network}, input {shape}", *found)


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        # PyTorch would use again what it has compiled for other instructions.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        compare("ResNet50", (64, 3, 32, 32), repeats=9)
        compare("PreActResNet18", (64, 3, 32, 32), repeats=5)
        compare("WideResNet28_10", (8, 3, 32, 32), repeats=5)
        compare("ResNet50", (8, 3, 224, 224), repeats=5)
        compare("CNN", (50, 1, 28, 28), repeats=15, steps=2)
        compare("CNN", (50, 1, 8, 8), repeats=15, steps=10)
        compare("CNN", (1, 1, 8, 8), repeats=25, steps=20)
        compare_evaluation("ResNet50", (64, 3, 32, 32), repeats=15)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--avx2", action="store_true", help="do without AVX-512")
    if parser.parse_args().avx2:
        os.environ.update(AVX2)  # of the processes to come
    print(machine())
    main()
