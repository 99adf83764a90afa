"""Tries the networks of chainercv2 0.0.62, which nobody here wrote: ``make zoo``.

Of each network: whether it runs, which mixing points ``MixupLayers.suggest`` proposes,
whether a mixed step trains at each of them, and how far the gradients of all weights
are from those that Chainer's own code computes in float64. Networks for larger images
get images of 96 x 96 or else 256 x 256 where they take them; the last pooling takes
what is left then. If the error in float32 is ten times that of Chainer's own code,
other images are tried, since rounding may send a unit to the other side of a ReLU's
kink.

All are mixed before the first gradient is compared. What is done is kept in
result/zoo/records.jsonl or the file that is named, and the next call goes on from
there. The first and the last network of each module take hours; name networks to try
these alone.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from chainer_mmix.progress import Progress
from chainer_revive.atomic import write_atomically

HERE = Path(__file__).parent
MINUTES = 15
ERRORS = ("float64", "numba", "chainer")


def networks() -> list[str]:
    """Returns the first and the last network of each module."""
    import chainercv2.model_provider as provider

    source = Path(provider.__file__).read_text()
    modules = re.findall(r"^from \.models\.(\w+) import", source, re.M)
    firsts, lasts = [], []
    for module in modules:
        path = Path(provider.__file__).with_name("models") / f"{module}.py"
        defined = re.findall(r"^def (\w+)\(", path.read_text(), re.M)
        names = [name for name in defined if name in provider._models]
        firsts += names[:1]
        lasts += names[1:][-1:]
    return firsts + lasts


class Process:
    """Tries one network after another, since it takes long to start.

    If one crashes it or takes too long, a new one starts for the next network.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def __call__(self, stage: str, name: str) -> dict:
        if self._process is None:
            command = [sys.executable, "-W", "ignore", HERE / "try_networks.py"]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, text=True
            )
        start = time.monotonic()
        # An alarm in the process would wait for the end of a long kernel.
        timer = threading.Timer(60 * MINUTES, self._process.kill)
        timer.start()
        try:
            print(stage, name, file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        seconds = round(time.monotonic() - start, 1)
        if line:
            return {**json.loads(line), f"{stage}_seconds": seconds}
        status = self.close()
        late = seconds >= 60 * MINUTES
        why = f"not done in {MINUTES} minutes" if late else f"exit status {status}"
        return {failure(stage): why, f"{stage}_seconds": seconds}

    def close(self) -> int:
        """Waits until it has ended."""
        if self._process is None:
            return 0
        self._process.communicate()
        status, self._process = self._process.returncode, None
        return status


def failure(stage: str) -> str:
    """Returns where a record keeps what went wrong."""
    return "error" if stage == "mix" else "no_gradients"


def is_tried(stage: str, record: dict) -> bool:
    if stage == "mix":
        return bool(record)
    return not {"error", "no_gradients", "float64"}.isdisjoint(record)


def table(results: dict[str, dict]) -> str:
    rows = [
        "| network | input | proposed points | trains | NumPy, float64 | Numba | "
        "Chainer |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in sorted(results.items()):
        if "error" in result:
            rows.append(f"| {name} | {result['error'][:90]} | | | | | |")
            continue
        points = result["points"]
        failed = [f"not at {k}: {error[:60]}" for k, error in points.items() if error]
        trains = "; ".join(failed) or ("yes" if points else "")
        none = "–" if "no_gradients" in result else ""
        errors = [f"{result[k]:.1e}" if k in result else none for k in ERRORS]
        cells = [name, "×".join(map(str, result["input"])), ", ".join(points) or "none"]
        rows.append(f"| {' | '.join([*cells, trains, *errors])} |")
    title = "# Networks of chainercv2 0.0.62"
    return "\n\n".join([title, summary(list(results.values())), "\n".join(rows)]) + "\n"


def summary(results: list[dict]) -> str:
    run = [result for result in results if "error" not in result]
    train = [r for r in run if r["points"] and not any(r["points"].values())]
    compared = [result for result in run if "chainer" in result]
    measured = [r for r in compared if r["chainer"] < 0.5]  # nor is NaN
    text = (
        f"Of {len(results)} networks {len(run)} run, and {len(train)} train a mixed "
        "step at every proposed point."
    )
    if measured:
        ratios = [result["numba"] / result["chainer"] for result in measured]
        exact = max(result["float64"] for result in measured)
        text += (
            f" The gradients of {len(measured)} were compared: with NumPy in float64 "
            f"they are within {exact:.0e} of those of Chainer's own code; with Numba "
            f"in float32 their error is {statistics.median(ratios):.2f} of Chainer's "
            "own in the median, and more than ten times it in "
            f"{sum(ratio > 10 for ratio in ratios)}."
        )
    if left := len(compared) - len(measured):
        text += (
            f" For {left}, the random weights leave no figure right in the float32 "
            "gradients of Chainer's own code."
        )
    return text


def read(path: Path) -> dict[str, dict]:
    lines = path.read_text().splitlines() if path.exists() else []
    records = map(json.loads, lines)
    return {record.pop("name"): record for record in records}


def write(path: Path, records: dict[str, dict]) -> None:
    with write_atomically(path) as file:
        for name, record in sorted(records.items()):
            file.write(json.dumps({"name": name, **record}) + "\n")
    with write_atomically(path.with_name("table.md")) as file:
        file.write(table(records))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NETWORK")
    default = Path("result", "zoo", "records.jsonl")
    parser.add_argument("--records", type=Path, default=default, metavar="FILE")
    args = parser.parse_args()
    args.records.parent.mkdir(parents=True, exist_ok=True)
    records = read(args.records)
    jobs = itertools.product(("mix", "gradients"), args.names or networks())
    jobs = [job for job in jobs if not is_tried(job[0], records.get(job[1], {}))]
    with Progress(len(jobs)) as progress, contextlib.closing(Process()) as process:
        for stage, name in jobs:
            progress(f"{name}, {stage}")
            if not is_tried(stage, records.get(name, {})):
                records[name] = {**records.get(name, {}), **process(stage, name)}
                write(args.records, records)
    print(summary(list(records.values())))
    print(f"the table is {args.records.with_name('table.md')}")


if __name__ == "__main__":
    main()
