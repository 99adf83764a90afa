"""500 digits, 40 % with a wrong label: which alpha, and mixing where?

Each run's result goes into sweep.json at once; a sweep that is started again goes on.
Where Optuna is installed, settings that fall behind get fewer seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping

import numpy as np
from experiment import mlp, parse_args, print_table, repeat, train
from matplotlib.figure import Figure

from chainer_mmix.analysis.figure import save_figure
from chainer_mmix.analysis.predictions import predict
from chainer_mmix.datasets import add_label_noise, get_digits, take_subset
from chainer_mmix.progress import Progress
from chainer_revive.atomic import write_atomically

try:
    import optuna
except ImportError:
    optuna = None

ALPHAS = (0.1, 0.2, 0.4, 0.8, 1, 2, 4)
# 0 is the input, 2 and 4 come after the hidden layers.
LAYERS = ([0], [2], [4], [0, 2], [0, 2, 4])


def repeat_or_prune(
    measure: Callable[..., dict[str, float]],
    args: argparse.Namespace,
    settings: Mapping[str, dict],
) -> dict[str, list]:
    """Does as :func:`~experiment.repeat` does, but does not pursue what is no good.

    A setting gets no more seeds when its mean is below the median of those before
    after as many. The order is always the same, so that a sweep can go on.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    results = {name: [] for name in settings}
    progress = Progress(args.seeds * len(settings), args.quiet)

    def objective(trial: optuna.Trial) -> float:
        name = trial.suggest_categorical("setting", list(settings))
        for seed in range(args.seeds):
            progress(f"{name}, seed {seed}")
            results[name].append(measure(seed, **settings[name]))
            mean = np.mean([list(run.values()) for run in results[name]])
            trial.report(mean, seed)
            if seed + 1 < args.seeds and trial.should_prune():
                raise optuna.TrialPruned
        return mean

    grid = optuna.samplers.GridSampler({"setting": list(settings)}, seed=0)
    pruner = optuna.pruners.MedianPruner()
    study = optuna.create_study(direction="maximize", sampler=grid, pruner=pruner)
    with progress:
        study.optimize(objective)
    return results


def main() -> None:
    args = parse_args(__doc__, seeds=3, epoch=60)
    digits, test = get_digits()
    x, t = (np.stack(part) for part in zip(*test, strict=True))
    path = args.out / "sweep.json"
    done = json.loads(path.read_text()) if path.exists() else {}

    def measure(seed: int, **setting) -> dict[str, float]:
        key = json.dumps({"seed": seed, "epoch": args.epoch, **setting})
        if key not in done:
            data = add_label_noise(take_subset(digits, 500, seed), 0.4, 10, seed)
            net = train(
                lambda: mlp(64, 128, 128, 10), data, seed, args.epoch, **setting
            )
            done[key] = 100 * float((predict(net, x).argmax(axis=1) == t).mean())
            with write_atomically(path) as stream:
                json.dump(done, stream, indent=1)
        return {"test accuracy (%)": done[key]}

    settings = {"no mixing": {"mixup_hidden": False}}
    for layers in LAYERS:
        for alpha in ALPHAS:
            name = f"{layers}, α = {alpha}"
            settings[name] = {"mixup_alpha": alpha, "layer_mix": layers}
    # The paper's alphas, not the best ones of the test set.
    shown = ("no mixing", "[0], α = 1", "[0, 2, 4], α = 2")
    results = repeat(measure, args, {name: settings.pop(name) for name in shown})
    print_table(results)
    search = repeat if optuna is None else repeat_or_prune
    results |= search(measure, args, settings)
    scores = {
        name: np.ravel([list(run.values()) for run in runs])
        for name, runs in results.items()
    }
    base = scores["no mixing"]

    cells = [[scores[f"{layers}, α = {a}"] for a in ALPHAS] for layers in LAYERS]
    # Of the same seeds, however many there are: some are easier than others.
    grid = [[np.mean(own - base[: len(own)]) for own in row] for row in cells]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(grid, cmap="cividis", aspect="auto")
    middle = (np.min(grid) + np.max(grid)) / 2
    for (row, column), value in np.ndenumerate(grid):
        color = "black" if value > middle else "white"
        n = len(cells[row][column])
        text = f"{value:+.1f}" if n == args.seeds else f"{value:+.1f}\n({n})"
        axes.text(column, row, text, ha="center", va="center", color=color)
    axes.set_xticks(range(len(ALPHAS)), ALPHAS)
    axes.set_yticks(range(len(LAYERS)), LAYERS)
    axes.set_xlabel("α")
    axes.set_ylabel("mixing points")
    title = f"test accuracy: points above no mixing, which has {base.mean():.1f} %"
    if any(len(own) < args.seeds for own in scores.values()):
        title += f"\n{args.seeds} seeds; (n): stopped by Optuna after n"
    axes.set_title(title, fontsize="medium")
    figure.colorbar(image)
    save_figure(figure, args.out / "sweep.png")


if __name__ == "__main__":
    main()
