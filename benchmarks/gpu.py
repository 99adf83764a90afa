"""All that a machine with a GPU can tell, in under nine minutes: ``make gpu``.

Checks the functions for a GPU and times them, runs the tests marked gpu, trains by each
path, and compares with PyTorch if that is installed. Each stage has its own limit, and
one that fails does not stop the next; without a GPU, nothing follows the first. Writes
``benchmarks/results/gpu-<card>.txt``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from gpu_vs_pytorch import CANDIDATES

from chainer_revive.atomic import write_atomically

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PYTHON = sys.executable
_TOLERANCE = {"float32": 0.02, "mixed16": 0.05}  # of the losses


class Stage(NamedTuple):
    """A command, and what is told of it.

    Attributes:
        name: Of the stage.
        command: What is run.
        seconds: When it is ended.
        environ: What is added to the environment.
        keep: Takes the output, and returns the lines for the results.
    """

    name: str
    command: list[str]
    seconds: float
    environ: dict[str, str] = {}  # noqa: RUF012  (nobody changes it)
    keep: Callable[[str], list[str]] = str.splitlines


class Outcome(NamedTuple):
    """What has become of a stage."""

    name: str
    verdict: str  # "ok", or what went wrong
    seconds: float
    lines: list[str]


def run(stage: Stage, log: Path) -> Outcome:
    """Runs a stage; its whole output goes to a file."""
    started = time.monotonic()
    with open(log, "w+", encoding="utf-8", errors="replace") as file:
        process = subprocess.Popen(
            stage.command,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **stage.environ},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(stage.seconds)
            verdict = "ok" if status == 0 else f"failed, status {status}"
        except subprocess.TimeoutExpired:
            verdict = f"not done after {stage.seconds:.0f} s"
        finally:
            if process.poll() is None:  # with all that it has started
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        file.seek(0)
        output = file.read()
    seconds = time.monotonic() - started
    try:
        lines = stage.keep(output)
    except (LookupError, OSError, ValueError):  # it has not come so far
        lines = []
        verdict = "left no results" if verdict == "ok" else verdict
    if verdict != "ok" and not lines:
        lines = output.splitlines()[-5:]
    return Outcome(stage.name, verdict, seconds, lines)


def last_line(output: str) -> list[str]:
    """Keeps the summary of pytest, and what it left out.

    Raises:
        ValueError: No test was run.
    """
    lines = output.splitlines()
    if not re.search("[0-9] (passed|failed|error)", lines[-1]):
        raise ValueError("no test was run")
    told = [line for line in lines if line.startswith(("FAILED", "ERROR", "SKIPPED"))]
    return [*told[:20], lines[-1]]


def without_warnings(output: str) -> list[str]:
    """Keeps tables."""
    return [line for line in output.splitlines() if "arning" not in line]


def trainings(folder: Path) -> list[Stage]:
    """Returns a training by each path; all begin alike."""
    # The first ones wait for CuPy, which compiles each kernel for a dtype once.
    paths = {
        "Chainer's own code": (60, "0"),
        "what the check allows": (40, "auto"),
        "what the check allows, graphs": (30, "auto", "--graph"),
        "the same, mixed16": (
            *(50, "auto", "--graph", "--data-on-device"),
            *("--dtype", "mixed16"),
        ),
    }
    stages = []
    for i, (name, (seconds, path, *options)) in enumerate(paths.items()):
        out = folder / f"train{i}"
        command = [PYTHON, "train_manifoldmixup.py", "--gpu", "0", "--quiet"]
        command += ["--model", "resnet18", "--epoch", "3", "--out", str(out), *options]
        environ = {"CHAINER_MMIX_CUDNN": path, "CHAINER_MMIX_CUDA": path}

        def keep(output: str, out=out) -> list[str]:
            return [json.dumps(losses(out))]

        stages.append(Stage(f"train: {name}", command, seconds, environ, keep))
    return stages


def losses(out: Path) -> list[float]:
    """Returns the losses of each epoch of a run."""
    epochs = json.loads((out / "log").read_text())
    return [
        round(e[k], 5) for e in epochs for k in ("main/loss", "validation/main/loss")
    ]


def agree(outcomes: Sequence[Outcome]) -> Outcome:
    """Compares the losses of all trainings with those of the first."""
    found = {o.name: json.loads(o.lines[-1]) for o in outcomes if o.verdict == "ok"}
    if len(found) < 2:
        return Outcome("losses agree", "too few trainings ended well", 0, [])
    (base, wanted), *others = found.items()
    lines, bad = [], []
    for name, actual in others:
        shares = [abs(a - w) / abs(w) for a, w in zip(actual, wanted, strict=True)]
        allowed = _TOLERANCE["mixed16" if "mixed16" in name else "float32"]
        is_near = all(share <= allowed for share in shares)  # NaN is not
        if is_near:
            lines.append(f"{name}: within {max(shares):.1%} of {base}")
        else:
            lines.append(f"{name}: {actual}, and {base}: {wanted}")
            bad.append(name)
    verdict = f"not those of {', '.join(bad)}" if bad else "ok"
    return Outcome("losses agree", verdict, 0, lines)


def stages(folder: Path) -> list[Stage]:
    """Returns the stages before and after the trainings."""
    report = folder / "doctor.txt"
    # With the mixing and the graphs of this package.
    doctor = [PYTHON, "-m", "chainer_mmix.cli", "doctor", "--out", str(report)]
    # Others need not be read for the few that are marked.
    files = [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.gpu" in file.read_text(encoding="utf-8")
    ]
    pytest = [PYTHON, "-m", "pytest", "-q", "-rs", "-m", "gpu", "--timeout", "60"]
    benchmark = [PYTHON, "benchmarks/gpu_vs_pytorch.py", "--turns", "4"]
    benchmark += ["--steps", "30", "--network", "preactresnet18", "resnet50-cifar"]
    # torch.compile alone would take most of the time.
    names = [name for name in CANDIDATES if not name.endswith("torch.compile")]
    benchmark += ["--candidate", *names]
    beside = "PyTorch" if find_spec("torch") else "itself, since PyTorch is missing"
    return [
        Stage("doctor", doctor, 75, keep=lambda _: report.read_text().splitlines()),
        Stage("tests marked gpu", [*pytest, *files], 110, keep=last_line),
        *trainings(folder),
        Stage(f"beside {beside}", benchmark, 170, keep=without_warnings),
    ]


def card_of(outcomes: Sequence[Outcome]) -> str:
    """Returns the card's name as a part of a file name."""
    for outcome in outcomes:
        for line in outcome.lines:
            if line.startswith("card: "):
                name = re.sub("[^a-z0-9]+", "-", line.removeprefix("card: ").lower())
                return name.strip("-")
    return "unknown"


def no_gpu_because(outcome: Outcome) -> str | None:
    """Returns doctor's sentence if there is no GPU, which all stages need."""
    last = outcome.lines[-1] if outcome.verdict != "ok" and outcome.lines else ""
    return last if last.startswith(("no GPU: ", "the GPU cannot be used: ")) else None


def summary(outcomes: Sequence[Outcome], seconds: float) -> list[str]:
    """Returns a screen: how each stage ended, and its last line."""
    lines = [f"{date.today()}, {seconds:.0f} s in all"]
    for o in outcomes:
        last = o.lines[-1] if o.lines else ""
        lines.append(f"{o.name:<40}{o.seconds:>6.0f} s  {o.verdict}")
        if last and not o.name.startswith("train"):
            lines.append(f"    {last[:96]}")
    return lines


def save(folder: Path, outcomes: Sequence[Outcome], lines: Sequence[str]) -> Path:
    """Writes the results, and returns where they are."""
    path = folder / f"gpu-{card_of(outcomes)}.txt"
    with write_atomically(path) as file:
        file.write("\n".join(lines) + "\n")
        for o in outcomes:
            file.write("\n".join(["", f"== {o.name}: {o.verdict}", *o.lines, ""]))
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all stages.

    Returns:
        int: 0 if all ended well, else 1.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="a folder (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    args.results.mkdir(parents=True, exist_ok=True)
    started, outcomes = time.monotonic(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, stage in enumerate(stages(folder)):
            outcomes.append(run(stage, folder / f"{number}.log"))
            last = outcomes[-1]
            print(f"{last.name}: {last.verdict} ({last.seconds:.0f} s)", flush=True)
            if reason := no_gpu_because(last):
                print(reason)
                return 1
            # Also if what follows is broken off.
            lines = summary(outcomes, time.monotonic() - started)
            save(args.results, outcomes, lines)
    trained = [o for o in outcomes if o.name.startswith("train")]
    outcomes.insert(outcomes.index(trained[-1]) + 1, agree(trained))
    lines = summary(outcomes, time.monotonic() - started)
    path = save(args.results, outcomes, lines)
    print("\n".join(["", *lines, f"written to {path}"]))
    return int(any(o.verdict != "ok" for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
