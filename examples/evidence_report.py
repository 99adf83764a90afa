"""Tables and pictures of the evidence, from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from experiment import STYLES, print_table
from matplotlib.figure import Figure

from chainer_mmix.analysis.calibration import Reliability, pool
from chainer_mmix.analysis.figure import save_figure

# What is printed of a result: its key, its name, by what to multiply it.
NUMBERS = (
    ("accuracy", "test accuracy (%)", 100),
    ("nll", "NLL", 1),
    ("ece", "ECE (%)", 100),
    ("brier", "Brier score", 1),
    ("fgsm_accuracy/0.01", "accuracy, FGSM ε = 0.01 (%)", 100),
    ("fgsm_accuracy/0.03", "accuracy, FGSM ε = 0.03 (%)", 100),
    ("fgsm_accuracy/0.1", "accuracy, FGSM ε = 0.1 (%)", 100),
    ("train_accuracy", "training accuracy (%)", 100),
)
Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def report(records, pictures: Path) -> None:
    """Prints the tables and draws the pictures of what there is.

    Args:
        records (Records): The records.
        pictures (pathlib.Path): The folder for the pictures.
    """
    shown: dict[str, Runs] = {}
    for stage in records.stages.values():
        print(f"\n## {stage.title}\n")
        if stage.choice_of is None:
            _print_choice(records.choice(stage))
        else:
            print(
                f"α and layers: the choice on {records.stages[stage.choice_of].title}."
            )
        found = records.results(stage)
        seeds = [s for s in range(stage.seeds) if all(s in f for f in found.values())]
        print(f"\nFinished: {len(seeds)} of {stage.seeds} seeds.\n")
        if len(seeds) < 2:
            continue
        runs = {name: [found[name][seed] for seed in seeds] for name in found}
        shown[stage.title] = runs
        print_table(
            {
                name: [
                    {text: factor * run["result"][key] for key, text, factor in NUMBERS}
                    for run in of_setting
                ]
                for name, of_setting in runs.items()
            }
        )
    if shown:
        pictures.mkdir(parents=True, exist_ok=True)
        save_figure(draw_curves(shown), pictures / "evidence.png")
        save_figure(draw_calibration(shown), pictures / "evidence_calibration.png")


def _print_choice(choice: Mapping[str, Sequence[tuple]]) -> None:
    print("| mixing points | α | validation accuracy (%) | |")
    print("| --- | --- | --- | --- |")
    for tried in choice.values():
        scores = [
            None
            if runs is None
            else 100 * np.mean([run["result"]["accuracy"] for run in runs])
            for _, runs in tried
        ]
        complete = None not in scores
        for (mixing, _), score in zip(tried, scores, strict=True):
            points = ", ".join(map(str, mixing["layer_mix"]))
            best = "chosen" if complete and score == max(scores) else ""
            text = "not yet" if score is None else f"{score:.2f}"
            print(f"| {points} | {mixing['mixup_alpha']:g} | {text} | {best} |")


def draw_curves(shown: Mapping[str, Runs]) -> Figure:
    """Draws error and NLL on test images by epoch: mean and standard deviation."""
    figure = Figure(figsize=(1 + 3.8 * len(shown), 6), layout="constrained")
    panels = figure.subplots(2, len(shown), squeeze=False, sharex="col")
    for column, (title, runs) in zip(panels.T, shown.items(), strict=True):
        for (name, of_setting), style in zip(runs.items(), STYLES, strict=True):
            logs = [run["log"] for run in of_setting]
            epochs = [entry["epoch"] for entry in logs[0]]
            loss, accuracy = (
                np.array(
                    [[entry[f"validation/main/{key}"] for entry in log] for log in logs]
                )
                for key in ("loss", "accuracy")
            )
            for axes, values in zip(column, (100 * (1 - accuracy), loss), strict=True):
                mean, std = values.mean(axis=0), values.std(axis=0, ddof=1)
                axes.plot(epochs, mean, label=name, **style)
                band = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
                axes.fill_between(epochs, mean - std, mean + std, **band)
        column[0].set_title(title, fontsize="medium")
        column[1].set_xlabel("epoch")
        for axes in column:
            axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel("test error (%)")
    panels[1, 0].set_ylabel("test NLL")
    panels[0, 0].legend()
    return figure


def draw_calibration(shown: Mapping[str, Runs]) -> Figure:
    """Draws accuracy against confidence, the seeds of a setting together."""
    figure = Figure(figsize=(1 + 3.8 * len(shown), 4), layout="constrained")
    row = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, (title, runs) in zip(row, shown.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="gray", linestyle="--", label="ideal")
        for (name, of_setting), style in zip(runs.items(), STYLES, strict=True):
            tables = [run["result"]["reliability"] for run in of_setting]
            bins = pool(
                [
                    Reliability(
                        *(np.array(table[k], float) for k in Reliability._fields)
                    )
                    for table in tables
                ]
            )
            full = bins.count >= 50
            axes.plot(bins.confidence[full], bins.accuracy[full], label=name, **style)
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("confidence")
        axes.grid(alpha=0.3)
    row[0].set_ylabel("accuracy (bins of 50 images or more)")
    row[0].legend()
    return figure
