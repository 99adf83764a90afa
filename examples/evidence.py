"""Fashion-MNIST without mixing, with input mixup and with Manifold Mixup.

Small ResNets are trained on 2,000, 10,000 and all 60,000 images, and on 2,000 of which
40 % have a wrong label. α and layers are chosen on validation images; the test set only
measures. All of it takes hours: each finished run leaves its record, and the same
command goes on where it was stopped. Several processes may share the work.
docs/evidence.md has the results.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence_report import report
from evidence_run import train
from threadpoolctl import threadpool_limits

from chainer_mmix.datasets import get_fashion_mnist
from chainer_mmix.datasets.splits import split_off
from chainer_mmix.training import LockedError

ROOT = Path(__file__).parent.parent
# What the runs of a stage have in common.
COMMON = {"batchsize": 100, "lr": 0.1, "weight_decay": 1e-4, "width": 12}
# Of the paper, and hidden layers alone.
LAYERS = ([0, 1, 2], [1, 2, 3])
# Not those of the measured runs.
FIRST_CHOICE_SEED = 100


@dataclasses.dataclass(frozen=True)
class Stage:
    """Runs on training sets of one kind.

    Attributes:
        name (str): Its folder of records.
        title (str): What it trains on.
        n_train (int): The number of training images.
        epoch (int): Epochs a run; the rate drops to a tenth after half of them and
            after three quarters.
        every (int): Epochs from one evaluation and snapshot to the next.
        seeds (int): Runs a setting.
        label_noise (float): The share of wrong labels.
        alphas (tuple of float): Of which one is chosen.
        choice_seeds (int): Runs a candidate.
        choice_of (str): The stage whose choice it takes; by default its own.
    """

    name: str
    title: str
    n_train: int
    epoch: int
    every: int
    seeds: int
    label_noise: float = 0.0
    alphas: tuple[float, ...] = (0.2, 1, 2)
    choice_seeds: int = 1
    choice_of: str | None = None

    def settings(self, mixing: Mapping[str, Any], seed: int, held_out: str) -> dict:
        """Returns the settings of a run."""
        names = ("n_train", "label_noise", "epoch", "every")
        own = {name: getattr(self, name) for name in names}
        return {**own, **COMMON, "mixing": mixing, "seed": seed, "held_out": held_out}


STAGES = (
    Stage("2000", "2,000 images, 30 epochs", 2000, 30, 6, 5),
    Stage("10000-brief", "10,000 images, 9 epochs", 10_000, 9, 3, 3, choice_of="2000"),
    Stage(
        "2000-noise",
        "2,000 images, 40 % wrong labels, 30 epochs",
        *(2000, 30, 6, 5),
        label_noise=0.4,
        alphas=(1, 4),
    ),
    Stage("10000", "10,000 images, 30 epochs", 10_000, 30, 5, 3, choice_of="2000"),
    Stage("60000", "60,000 images, 12 epochs", 60_000, 12, 2, 3, choice_of="2000"),
)
SHORT = (
    Stage("500", "500 images", 500, 20, 4, 3, alphas=(1, 2)),
    Stage(
        "500-noise",
        "500 images, 40 % wrong labels",
        *(500, 20, 4, 3),
        label_noise=0.4,
        choice_of="500",
    ),
)


def candidates(stage: Stage) -> dict[str, list[dict[str, Any]]]:
    """Returns what may be chosen, by the name of the setting."""
    return {
        "no mixing": [{"mixup_hidden": False}],
        "input mixup": [{"mixup_alpha": a, "layer_mix": [0]} for a in stage.alphas],
        "manifold mixup": [
            {"mixup_alpha": alpha, "layer_mix": layers}
            for layers in LAYERS
            for alpha in stage.alphas
        ],
    }


class Records:
    """The records of finished runs.

    Args:
        folder (pathlib.Path): Where they are.
        stages (sequence of Stage): Of which stages.
    """

    def __init__(self, folder: Path, stages: Sequence[Stage]) -> None:
        self.folder = folder
        self.stages = {stage.name: stage for stage in stages}

    def path(self, stage: Stage, settings: Mapping[str, Any]) -> Path:
        mixing = settings["mixing"]
        name = "none"
        if mixing.get("mixup_hidden", True):
            points = "".join(map(str, mixing["layer_mix"]))
            name = f"alpha{mixing['mixup_alpha']:g}-at{points}"
        name = f"{settings['held_out']}-{name}-seed{settings['seed']}"
        return self.folder / stage.name / f"{name}.json"

    def read(self, stage: Stage, settings: Mapping[str, Any]) -> dict | None:
        """Returns the record of a run, ``None`` if there is none of these settings."""
        path = self.path(stage, settings)
        record = json.loads(path.read_text()) if path.exists() else None
        return record if record and record["settings"] == settings else None

    def choice(self, stage: Stage) -> dict[str, list[tuple[dict, list | None]]]:
        """Returns the candidates of a stage with their records, ``None`` if incomplete.

        Those of a setting with one candidate are not trained.
        """
        found: dict[str, list] = {}
        for name, mixings in candidates(stage).items():
            found[name] = []
            for mixing in mixings if len(mixings) > 1 else ():
                runs = [self.read(stage, s) for s in choice_runs(stage, mixing)]
                found[name].append((mixing, None if None in runs else runs))
        return found

    def chosen(self, stage: Stage) -> dict[str, dict[str, Any] | None]:
        """Returns how each setting mixes: best on the validation images, on average.

        Where it is not known yet, there is ``None``.
        """
        source = self.stages[stage.choice_of] if stage.choice_of else stage
        best: dict[str, dict[str, Any] | None] = {}
        for name, mixings in candidates(source).items():
            if len(mixings) == 1:
                best[name] = mixings[0]
                continue
            tried = self.choice(source)[name]
            if any(runs is None for _, runs in tried):
                best[name] = None
                continue
            best[name] = max(tried, key=lambda one: validation_accuracy(one[1]))[0]
        return best

    def results(self, stage: Stage) -> dict[str, dict[int, dict]]:
        """Returns for each setting the records of the test set, by seed."""
        return {
            name: {
                seed: record
                for seed in range(stage.seeds)
                if mixing is not None
                if (record := self.read(stage, stage.settings(mixing, seed, "test")))
            }
            for name, mixing in self.chosen(stage).items()
        }


def choice_runs(stage: Stage, mixing: Mapping[str, Any]) -> list[dict[str, Any]]:
    seeds = range(FIRST_CHOICE_SEED, FIRST_CHOICE_SEED + stage.choice_seeds)
    return [stage.settings(mixing, seed, "validation") for seed in seeds]


def validation_accuracy(runs: Sequence[Mapping]) -> float:
    return float(np.mean([run["result"]["accuracy"] for run in runs]))


def wanted(records: Records, stage: Stage) -> Iterator[dict[str, Any]]:
    """Yields the settings of the runs of a stage that can be told by now, in order."""
    if stage.choice_of is None:
        for mixings in candidates(stage).values():
            for mixing in mixings if len(mixings) > 1 else ():
                yield from choice_runs(stage, mixing)
    for seed in range(stage.seeds):
        for mixing in records.chosen(stage).values():
            if mixing is not None:
                yield stage.settings(mixing, seed, "test")


class Pace:
    """Tells how far the work is and about how long it will take."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._done = 0.0

    def __call__(self, name: str, step: float, left: float) -> None:
        """Says that ``step`` more images are done, and ``left`` are not yet."""
        self._done += step
        took = time.monotonic() - self._began
        estimate = took / self._done * left / 60
        print(f"{name}, {estimate:.0f} min of work left", file=sys.stderr, flush=True)


def work_of(settings: Mapping[str, Any]) -> int:
    return settings["n_train"] * settings["epoch"]


def run_all(records: Records, work: Path, full: Sequence, test: Sequence) -> None:
    """Trains what has no record yet, and waits for what other processes are at."""
    pool, validation = split_off(full, 1 / 12, seed=0)
    pace = Pace()
    while True:
        left = [
            (stage, settings)
            for stage in records.stages.values()
            for settings in wanted(records, stage)
            if records.read(stage, settings) is None
        ]
        if not left:
            return
        # Three seeds of each stage before more of any.
        left.sort(key=lambda run: 3 <= run[1]["seed"] < FIRST_CHOICE_SEED)
        amount = sum(work_of(settings) for _, settings in left)
        for stage, settings in left:
            path = records.path(stage, settings)
            name = f"{len(left)} runs known to be left; {stage.name}/{path.stem}"
            step = work_of(settings) / settings["epoch"] * settings["every"]

            def tell(epoch, name=name, step=step, settings=settings, amount=amount):
                rest = amount - epoch / settings["epoch"] * work_of(settings)
                pace(f"{name}, epoch {epoch} of {settings['epoch']}", step, rest)

            try:
                train(
                    settings,
                    full if settings["n_train"] == len(full) else pool,
                    test if settings["held_out"] == "test" else validation,
                    path,
                    work / stage.name / path.stem,
                    tell,
                )
            except LockedError:
                continue
            break
        else:
            time.sleep(5)  # others are at all of them


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="smaller training sets and few seeds, in minutes; its records and "
        "pictures go into result/evidence-short",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="train nothing: table and pictures of the records that there are",
    )
    args = parser.parse_args()
    threadpool_limits(1)
    work = Path("result", "evidence")
    if args.short:
        short = Path("result", "evidence-short")
        records, pictures = Records(short, SHORT), short
    else:
        records = Records(ROOT / "benchmarks" / "results" / "evidence", STAGES)
        pictures = ROOT / "docs" / "images"
    try:
        if not args.report:
            run_all(records, work, *get_fashion_mnist())
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    report(records, pictures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
