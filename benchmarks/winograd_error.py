"""The error of Winograd's convolutions beside that of the direct sums.

For each 3x3 layer of stride 1, in a training step of random images: the root mean
square of the difference from float64, relative to that of the result, for the output
and the gradients by input and kernel. Where all are equal, Winograd's does not pay.
"""

from __future__ import annotations

import chainer
import chainer.functions as F
import numpy as np
from chainer.functions.connection.convolution_2d import Convolution2DFunction

from chainer_mmix import models

WAYS = {"direct sums": False, "default": True, "F(2x2, 3x3)": 2, "F(4x4, 3x3)": 4}
# Networks and their batch sizes.
NETWORKS = {"PreActResNet18": 32, "WideResNet28_10": 8, "ResNet50": 64}


class Layers(chainer.FunctionHook):
    """Keeps images, kernel and gradient of each 3x3 convolution of stride 1."""

    def __init__(self) -> None:
        self.found: list[tuple[np.ndarray, ...]] = []

    def backward_postprocess(self, function, in_data, out_grad) -> None:
        if not isinstance(function, Convolution2DFunction) or function.sy > 1:
            return
        if in_data[1].shape[2:] == (3, 3):
            self.found.append((*in_data[:2], *out_grad))


def results(x, W, gy) -> list[np.ndarray]:
    """Returns the output and both gradients."""
    x, W = chainer.Variable(x), chainer.Variable(W)
    y = F.convolution_2d(x, W, pad=1)
    gradients = chainer.grad([y], [x, W], [chainer.Variable(gy)])
    return [v.array for v in (y, *gradients)]


def error(found: np.ndarray, right: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - right) ** 2) / np.mean(right**2)))


def compare(network: str, batchsize: int) -> dict[str, np.ndarray]:
    """Prints a line for each layer; returns the largest ratios to the direct sums."""
    random = np.random.RandomState(0)
    np.random.seed(0)
    x = random.randn(batchsize, 3, 32, 32).astype(np.float32)
    t = random.randint(0, 10, batchsize).astype(np.int32)
    with Layers() as layers:
        F.softmax_cross_entropy(getattr(models, network)(10)(x), t).backward()
    print(f"\n{network}, {batchsize} images: {', '.join(WAYS)}")
    largest = {way: np.zeros(3) for way in WAYS}
    for x, W, gy in reversed(layers.found):
        arrays = x, W, gy
        right = results(*(a.astype(np.float64) for a in arrays))
        errors = {}
        for way, wanted in WAYS.items():
            with chainer.using_config("winograd", wanted):
                found = results(*arrays)
            errors[way] = np.array(list(map(error, found, right)))
            ratios = errors[way] / errors["direct sums"]
            largest[way] = np.maximum(largest[way], ratios)
        line = f"{x.shape[1]:4} -> {len(W):3}, {x.shape[2]:2} x {x.shape[3]:2}"
        for of_each in zip(*errors.values(), strict=True):
            line += "  " + "".join(f" {value:.1e}" for value in of_each)
        print(line, flush=True)
    return largest


def main() -> None:
    found = [compare(*setting) for setting in NETWORKS.items()]
    print("\nlargest ratios to the direct sums: output, gradients by input and kernel")
    for way in WAYS:
        ratios = np.max([largest[way] for largest in found], axis=0)
        print(f"{way:12}" + "".join(f" {ratio:5.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
