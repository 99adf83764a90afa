"""Says what this machine's GPU computes right, and how fast: a command."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from chainer_revive.atomic import write_atomically
from chainer_revive.gpu_check import modules
from chainer_revive.gpu_check.verdict import Verdict, passes

_PACKAGES = (
    *("chainer-mmix", "chainer", "numpy", "cupy-cuda12x", "cupy-cuda13x"),
    *("nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "nvidia-cudnn-frontend"),
    *("nvidia-nccl-cu12", "nvidia-nccl-cu13"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "--out",
        default="chainer-mmix-doctor.txt",
        metavar="FILE",
        help="the file for a bug report (default: %(default)s)",
    )
    parser.add_argument(
        "--gpu", type=int, default=0, help="the number of the GPU (default: 0)"
    )
    parser.add_argument("--quick", action="store_true", help="leave the timing out")


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the command by itself."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    """Checks the GPU, times its functions, prints and writes the report.

    Returns:
        int: 0 if all functions compute right, 1 if one does not, 2 without a GPU.
    """
    lines: list[str] = []

    def say(more: Iterable[str]) -> None:
        for line in more:
            print(line, flush=True)
            lines.append(line)
        with write_atomically(args.out) as file:  # also if what follows crashes
            file.write("\n".join([*lines, ""]))

    try:
        say(environment())
        status = _examine(args, say)
    except OSError as e:
        print(f"{args.out} cannot be written ({e.strerror}): name another --out")
        return 2
    print(f"written to {args.out}")
    return status


def _examine(args: argparse.Namespace, say) -> int:
    from chainer.backends import cuda

    import chainer_revive
    from chainer_revive.gpu_check import card, faults, timing, verdict

    chainer_revive.use(cuda=False, cudnn=False)
    if not cuda.available:
        say([f"no GPU: {no_gpu_because()}"])
        return 2
    try:
        here = card.describe(modules, args.gpu)
        say(f"{key}: {value}" for key, value in here.items())
    except Exception as e:
        say([f"the GPU cannot be used: {faults.explain(e)}"])
        return 2
    if sentence := faults.too_new(here):
        say([sentence])
    if "cudnn" not in card.usable_layers():
        say([_no_cudnn_because()])
    found = verdict.get(here, args.gpu, fresh=True)
    say(table(found))
    if found.crash is None and not args.quick:
        from chainer_revive.gpu_check.run import Gpu, units

        cuda.cupy.cuda.Device(args.gpu).use()  # not before the check, which takes it
        failures = found.failures()
        right = [u for u in units() if u.name in found.units and u.name not in failures]
        say(["", f"{'milliseconds':<56}{'ours':>9}{'Chainer':>9}{'ratio':>7}"])
        for t in timing.measure(right, Gpu()):
            say([t.line()])
    return int(found.crash is not None or bool(found.failures()))


def environment() -> Iterator[str]:
    """Yields versions and switches."""
    import chainer_revive

    yield f"Python {platform.python_version()} on {platform.platform()}"
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            yield f"{package} {version(package)}"
    switches = {k: v for k, v in os.environ.items() if k.startswith("CHAINER_")}
    yield f"switches: {switches or 'none'}"
    yield from chainer_revive.describe().splitlines()


def no_gpu_because() -> str:
    """Says why Chainer can use none, and what helps."""
    from chainer.backends import cuda

    error = getattr(cuda, "_resolution_error", None)
    if isinstance(error, ImportError) and "cupy" in str(error):
        return (
            "CuPy is not installed: install 'chainer-mmix[cuda12]' (Maxwell to Hopper) "
            "or [cuda13] (Turing and newer)"
        )
    if isinstance(error, OSError) and "libcuda" in str(error):
        return f"NVIDIA's driver is not installed, or not visible here ({error})"
    return f"{type(error).__name__}: {error}"


def _no_cudnn_because() -> str:
    from chainer.backends import cuda

    from chainer_revive.cudnn.versions import versions

    if cuda.cudnn_enabled:
        return "cuDNN 8 is used by Chainer's own code, which is not checked here"
    try:
        versions()
    except ImportError as e:
        return f"no cuDNN: {e}"
    return "no cuDNN"


def table(found: Verdict) -> Iterator[str]:
    """Yields a line for each function and precision, with its largest deviations."""
    yield ""
    yield (
        f"{'deviation from float64':<42}{'in':>9}{'ours':>9}{'Chainer':>9}"
        f"{'allowed':>9}"
    )
    for unit in found.units.values():
        for precision in dict.fromkeys(r["precision"] for r in unit["results"]):
            results = [r for r in unit["results"] if r["precision"] == precision]
            ours, chainers = (
                _largest(r[key] for r in results) for key in ("ours", "chainers")
            )
            verdict = "" if all(map(passes, results)) else "  WRONG"
            yield (
                f"{unit['what']:<42}{precision:>9}{ours:>9}{chainers:>9}"
                f"{results[0]['allowed']:>9.0e}{verdict}"
            )
    for name, sentence in found.failures().items():
        yield f"left to Chainer's own code: {name}, {sentence}"
    if found.crash is not None:
        during = f" during {found.during}" if found.during else ""
        yield f"the check ended early{during}, so nothing is used: {found.crash}"


def _largest(deviations: Iterable[float | None]) -> str:
    found = list(deviations)
    return "-" if None in found else f"{max(found):.1e}"
