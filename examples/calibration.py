"""500 digits: how far probabilities can be trusted, with and without mixing."""

from __future__ import annotations

import numpy as np
from experiment import STYLES, mlp, parse_args, print_table, repeat, train
from matplotlib.figure import Figure

from chainer_mmix.analysis.calibration import (
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)
from chainer_mmix.analysis.figure import save_figure
from chainer_mmix.analysis.predictions import predict
from chainer_mmix.datasets import add_label_noise, get_digits, take_subset


def main() -> None:
    args = parse_args(__doc__, seeds=4, epoch=100)
    data, test = get_digits()
    x, t = (np.stack(part) for part in zip(*test, strict=True))

    def measure(seed: int, **setting):
        subset = take_subset(data, 500, seed)
        numbers, scores = {}, {}
        for what, share in (("right labels", 0.0), ("20 % wrong labels", 0.2)):
            noisy = add_label_noise(subset, share, 10, seed)
            net = train(
                lambda: mlp(64, 128, 128, 10), noisy, seed, args.epoch, **setting
            )
            y = scores[what] = predict(net, x)
            numbers |= {
                f"{what}: test accuracy": (y.argmax(axis=1) == t).mean(),
                f"{what}: ECE": expected_calibration_error(y, t),
                f"{what}: NLL": negative_log_likelihood(y, t),
                f"{what}: Brier score": brier_score(y, t),
            }
        return numbers, scores

    results = repeat(measure, args)
    print_table({name: [run[0] for run in runs] for name, runs in results.items()})

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, what in zip(panels, results["no mixing"][0][1], strict=True):
        axes.plot([0, 1], [0, 1], color="gray", linestyle="--", label="ideal")
        for (name, runs), style in zip(results.items(), STYLES, strict=True):
            # All seeds together: a bin of one has few images.
            scores = np.concatenate([run[1][what] for run in runs])
            table = reliability(scores, np.tile(t, len(runs)), n_bins=10)
            filled = table.count >= 10
            axes.plot(
                table.confidence[filled], table.accuracy[filled], label=name, **style
            )
        axes.set_title(f"trained on {what}")
        axes.set_xlabel("confidence")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy (bins of 10 images or more)")
    panels[0].legend(loc="lower right")
    save_figure(figure, args.out / "calibration.png")


if __name__ == "__main__":
    main()
