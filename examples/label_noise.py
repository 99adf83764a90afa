"""500 digits, some with a wrong label: the test error, with and without mixing."""

from __future__ import annotations

import numpy as np
from experiment import mlp, parse_args, plot_curves, print_table, repeat, train

from chainer_mmix.analysis.figure import save_figure
from chainer_mmix.analysis.predictions import predict
from chainer_mmix.datasets import add_label_noise, get_digits, take_subset

SHARES = (0.0, 0.2, 0.4, 0.6)


def main() -> None:
    args = parse_args(__doc__, seeds=4, epoch=100)
    data, test = get_digits()
    x, t = (np.stack(part) for part in zip(*test, strict=True))

    def measure(seed: int, **setting) -> dict[str, float]:
        subset = take_subset(data, 500, seed)
        errors = {}
        for share in SHARES:
            noisy = add_label_noise(subset, share, 10, seed)
            net = train(
                lambda: mlp(64, 128, 128, 10), noisy, seed, args.epoch, **setting
            )
            wrong = (predict(net, x).argmax(axis=1) != t).mean()
            errors[f"test error (%), {share:.0%} wrong labels"] = 100 * wrong
        return errors

    results = repeat(measure, args)
    print_table(results)
    panel = (
        "share of wrong labels (%)",
        100 * np.array(SHARES),
        list(results["no mixing"][0]),
    )
    figure = plot_curves(results, [panel], "test error (%)")
    save_figure(figure, args.out / "label_noise.png")


if __name__ == "__main__":
    main()
