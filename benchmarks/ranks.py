"""Two ranks of one thread against one process of two threads, the same total batch.

In turns of a few steps, in one start of mpiexec: while rank 0 makes the steps of one
process, rank 1 sleeps. Also how long the exchange of gradients takes, as it is and as
ChainerMN makes it, and messages of several sizes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import chainer
import numpy as np

from chainer_mmix import ManifoldMixupClassifier
from chainer_mmix.models import PreActResNet18, ResNet50
from chainer_revive.cpu import blas

BATCHES = 64, 128, 256


def main() -> None:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        print("\nRanks: left out, for they need the extra mpi")
        return
    subprocess.run([mpiexec, "-n", "2", sys.executable, __file__, "rank"], check=True)


class Steps:
    """Steps of one network, in one process or on all ranks."""

    def __init__(self, network, comm) -> None:
        import chainermn

        self.comm = comm
        np.random.seed(0)
        self.model = ManifoldMixupClassifier(network(10), seed=0)
        optimizer = chainer.optimizers.MomentumSGD(1e-3).setup(self.model)
        self.alone = optimizer
        self.together = chainermn.create_multi_node_optimizer(optimizer, comm)

    def take(self, batch: int) -> None:
        rng = np.random.RandomState(0)
        self.x = rng.rand(batch, 3, 32, 32).astype(np.float32)
        self.t = rng.randint(0, 10, batch).astype(np.int32)

    def of_one(self) -> None:
        if self.comm.rank == 0:
            blas.controller().set_num_threads(self.comm.size)
            self.alone.update(self.model, self.x, self.t)
            blas.controller().set_num_threads(1)

    def of_all(self) -> None:
        own = slice(self.comm.rank, None, self.comm.size)
        self.together.update(self.model, self.x[own], self.t[own])

    def of_exchange(self) -> None:
        self.comm.multi_node_mean_grad(self.model)

    def of_chainermn(self) -> None:
        for param in self.model.params():
            self.comm._multi_node_mean(None, param.grad)


def run_rank() -> None:
    import chainermn

    chainermn.global_except_hook.add_hook()
    comm = chainermn.create_communicator("naive")
    blas.controller().set_num_threads(1)
    if comm.rank == 0:
        print("\nRanks: 2 with 1 thread each against 1 process with 2 threads")
        print("messages, all-reduced in float32:")
    for n in (2, 1 << 12, 1 << 18, 1 << 22):
        array = np.zeros(n, np.float32)
        seconds = messages(comm, array, 50)
        if comm.rank == 0:
            print(f"  {4 * n:10d} bytes {1e3 * statistics.median(seconds):10.3f} ms")
    for network in (ResNet50, PreActResNet18):
        steps = Steps(network, comm)
        kinds = {"one process": steps.of_one, "two ranks": steps.of_all}
        exchanges = {
            "exchange alone": steps.of_exchange,
            "ChainerMN's own": steps.of_chainermn,
        }
        for batch in BATCHES:
            steps.take(batch)
            if batch == BATCHES[0]:
                # The first step on ranks only sends the weights.
                compare(comm, steps, {**kinds, **exchanges}, warm_up=2, rounds=5, n=4)
            else:
                compare(comm, steps, kinds, warm_up=1, rounds=3, n=2)


def compare(comm, steps, kinds, warm_up: int, rounds: int, n: int) -> None:
    for _ in range(warm_up):
        for step in kinds.values():
            timed(comm, step, 1)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, step in kinds.items():
            # The first finds the caches as another kind has left them.
            times[kind].append(statistics.median(timed(comm, step, n)[1:]))
    if comm.rank:
        return
    size = sum(p.size for p in steps.model.params()) * 4e-6
    name = type(steps.model.predictor).__name__
    print(f"{name}, batch {len(steps.x)}, 32x32, {size:.1f} MB of gradients")
    for kind, seconds in times.items():
        ratio = statistics.median(
            a / b for a, b in zip(seconds, times["one process"], strict=True)
        )
        median = 1e3 * statistics.median(seconds)
        print(f"  {kind:<20} {median:9.1f} ms  ratio {ratio:.3f}", flush=True)


def messages(comm, array: np.ndarray, n: int) -> list[float]:
    found = []
    for _ in range(n):
        comm.mpi_comm.Barrier()
        start = time.perf_counter()
        comm._multi_node_mean(None, array)
        found.append(time.perf_counter() - start)
    return found


def timed(comm, step, n: int) -> list[float]:
    """Times steps, before which all ranks wait for each other."""
    found = []
    for _ in range(n):
        comm.mpi_comm.Barrier()
        start = time.perf_counter()
        step()
        done = comm.mpi_comm.Ibarrier()
        while not done.Test():
            time.sleep(0.0005)  # so that a rank that waits leaves its processor
        found.append(time.perf_counter() - start)
    return found


if __name__ == "__main__":
    run_rank() if sys.argv[1:] == ["rank"] else main()
