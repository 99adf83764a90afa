"""How the cost of training grows: ResNet50 by batch size, image size and threads.

Prints images per second in usual and in replayed steps, beside PyTorch's (the better of
eager, with and without channels last), and draws the last two. It takes ten minutes on
two cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

import cpu
import matplotlib
from paired import machine

BATCHES = [(n, 32) for n in (8, 16, 32, 64, 128, 256)]
IMAGES = [(8, size) for size in (32, 64, 96, 128, 224)]
THREADS = (1, 2)
CANDIDATES = {
    "usual": ("numba", False),
    "replayed": ("numba, replayed", False),
    "PyTorch": ("torch", False),
    "PyTorch, channels last": ("torch, channels last", False),
}


def speeds(
    batch: int, size: int, threads: int, repeats: int
) -> tuple[float, float, float]:
    """Returns images per second: usual, replayed, and PyTorch's best.

    That is NaN without PyTorch.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of the processes to come
    shape = batch, 3, size, size
    times, _ = cpu.measure(cpu.step, CANDIDATES, "ResNet50", shape, repeats)
    medians = {name: batch / statistics.median(s) for name, s in times.items()}
    usual, replayed = (medians.pop(name) for name in ("usual", "replayed"))
    return usual, replayed, max(medians.values(), default=float("nan"))


def draw(found: dict[tuple[int, int, int], tuple[float, ...]], out: Path) -> None:
    """Draws images per second over batch size and image size."""
    matplotlib.use("agg")
    from matplotlib import pyplot, ticker

    figure, panels = pyplot.subplots(
        1, 2, figsize=(9, 3.8), sharey=True, layout="constrained"
    )
    for axes, settings, place, label in (
        (panels[0], BATCHES, 0, "batch size (images of 32×32)"),
        (panels[1], IMAGES, 1, "image size (batches of 8)"),
    ):
        ticks = [setting[place] for setting in settings]
        for threads, color in zip(THREADS, ("C0", "C1"), strict=True):
            _, ours, best = zip(*(found[(*s, threads)] for s in settings), strict=True)
            name = f"{threads} thread" + "s" * (threads > 1)
            axes.plot(ticks, ours, "o-", color=color, label=f"chainer-mmix, {name}")
            axes.plot(ticks, best, "x--", color=color, label=f"PyTorch, {name}")
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ticker.ScalarFormatter())
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("images per second")
    panels[0].legend(fontsize="small")
    figure.suptitle("Training ResNet50 on a CPU, replayed steps")
    figure.savefig(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("growth.svg"), help="the picture")
    add("--repeats", type=int, default=5, help="steps of each candidate")
    args = parser.parse_args()
    print(machine())
    print(
        f"{'batch':>6}{'pixels':>10}{'threads':>9}  images/s: usual  replayed"
        "  PyTorch  replayed / PyTorch"
    )
    found = {}
    for threads in THREADS:
        for batch, size in dict.fromkeys(BATCHES + IMAGES):
            speed = speeds(batch, size, threads, args.repeats)
            found[batch, size, threads] = speed
            usual, replayed, best = speed
            print(
                f"{batch:6}{f'{size}x{size}':>10}{threads:9}{usual:17.1f}"
                f"{replayed:10.1f}{best:9.1f}{replayed / best:20.2f}",
                flush=True,
            )
    draw(found, args.out)
    print(args.out)


if __name__ == "__main__":
    main()
