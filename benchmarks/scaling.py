"""Predicts the efficiency of many GPUs by a cost model; docs/scaling.md explains it."""

from __future__ import annotations

import argparse
import math

import numpy as np

from chainer_mmix.models import ResNet50, WideResNet28_10

COUNTS = (1, 2, 4, 8, 16, 64, 256, 1024)


def exchange(n: int, size: float, args: argparse.Namespace) -> float:
    """Returns the seconds of an all-reduce of ``size`` bytes on n GPUs.

    Within a machine by a ring, then between machines by a ring for the bandwidth and a
    tree for the latency, as NCCL chooses.
    """
    local = min(n, args.gpus_a_machine)
    machines = n // local
    seconds = 2 * (local - 1) / local * size / (args.inside * 1e9)
    seconds += 2 * (local - 1) * args.latency_inside * 1e-6
    if machines > 1:
        seconds += 2 * (machines - 1) / machines * size / (args.between * 1e9)
        seconds += 2 * math.log2(machines) * args.latency_between * 1e-6
    return seconds if n > 1 else 0.0


def step(n: int, size: float, seconds: float, args: argparse.Namespace) -> float:
    """Returns the seconds of a step and all that it waits for."""
    slowest = seconds * args.jitter * math.sqrt(2 * math.log(n))
    report = 2 * math.log2(n) * args.latency_between * 1e-6
    return seconds + slowest + exchange(n, size, args) + report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--steps", type=float, nargs="+", default=[20, 50, 200], help="ms on one GPU")
    add("--inside", type=float, default=150, help="GB/s of a GPU inside a machine")
    add("--between", type=float, default=25, help="GB/s of a machine")
    add("--latency-inside", type=float, default=5, help="microseconds")
    add("--latency-between", type=float, default=15, help="microseconds")
    add("--gpus-a-machine", type=int, default=8)
    add("--jitter", type=float, default=0.01, help="deviation of a step, as a share")
    args = parser.parse_args()
    print(" ".join(f"{k} {v}" for k, v in vars(args).items()))
    x = np.zeros((2, 3, 32, 32), np.float32)
    for network in (ResNet50, WideResNet28_10):
        net = network(10)
        net(x)  # gives the parameters their shapes
        size = 4 * sum(param.size for param in net.params())
        print(f"\n{network.__name__}: {size / 1e6:.1f} MB of gradients in float32")
        print(f"{'ms on one GPU':>14}" + "".join(f"{n:>7}" for n in COUNTS))
        for ms in args.steps:
            shares = (ms / 1e3 / step(n, size, ms / 1e3, args) for n in COUNTS)
            print(f"{ms:14g}" + "".join(f"{share:7.2f}" for share in shares))


if __name__ == "__main__":
    main()
