"""500 digits, 40 % with a wrong label: which alpha, and mixing where?

Each run's result goes into sweep.json at once; a sweep that is started again goes on.
"""

from __future__ import annotations

import json

import numpy as np
from experiment import mlp, parse_args, print_table, repeat, train
from matplotlib.figure import Figure

from chainer_mmix.analysis.figure import save_figure
from chainer_mmix.analysis.predictions import predict
from chainer_mmix.atomic import write_atomically
from chainer_mmix.datasets import add_label_noise, get_digits, take_subset

ALPHAS = (0.1, 0.2, 0.4, 0.8, 1, 2, 4)
# 0 is the input, 2 and 4 come after the hidden layers.
LAYERS = ([0], [2], [4], [0, 2], [0, 2, 4])


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
    results = repeat(measure, args.seeds, settings)
    means = {
        name: np.mean([list(run.values()) for run in runs])
        for name, runs in results.items()
    }
    # The paper's alphas, not the best ones of the test set.
    shown = ("no mixing", "[0], α = 1", "[0, 2, 4], α = 2")
    print_table({name: results[name] for name in shown})

    grid = [[means[f"{layers}, α = {alpha}"] for alpha in ALPHAS] for layers in LAYERS]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(grid, cmap="cividis", aspect="auto")
    middle = (np.min(grid) + np.max(grid)) / 2
    for (row, column), value in np.ndenumerate(grid):
        color = "black" if value > middle else "white"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(ALPHAS)), ALPHAS)
    axes.set_yticks(range(len(LAYERS)), LAYERS)
    axes.set_xlabel("α")
    axes.set_ylabel("mixing points")
    axes.set_title(f"test accuracy (%); without mixing {means['no mixing']:.1f}")
    figure.colorbar(image)
    save_figure(figure, args.out / "sweep.png")


if __name__ == "__main__":
    main()
