"""The error of Winograd's convolutions beside that of the direct sums.

For each 3x3 layer of stride 1, in a training step of random images: the root mean
square of the difference from float64, relative to that of the result, for the output
and the gradients by input and kernel. Where both are equal, Winograd's does not pay.
"""

from __future__ import annotations

import chainer
import chainer.functions as F
import numpy as np
from chainer.functions.connection.convolution_2d import Convolution2DFunction

from chainer_mmix import models

NETWORKS = {"PreActResNet18": 32, "WideResNet28_10": 8}  # and their batch sizes


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


def compare(network: str, batchsize: int) -> float:
    """Prints a line for each layer; returns the largest ratio of both errors."""
    random = np.random.RandomState(0)
    np.random.seed(0)
    x = random.randn(batchsize, 3, 32, 32).astype(np.float32)
    t = random.randint(0, 10, batchsize).astype(np.int32)
    with Layers() as layers:
        F.softmax_cross_entropy(getattr(models, network)(10)(x), t).backward()
    print(f"\n{network}, {batchsize} images: direct sums, Winograd's, ratio")
    ratios = []
    for x, W, gy in reversed(layers.found):
        arrays = x, W, gy
        right = results(*(a.astype(np.float64) for a in arrays))
        with chainer.using_config("winograd", False):
            direct = results(*arrays)
        line = f"{x.shape[1]:4} -> {len(W):3}, {x.shape[2]:2} x {x.shape[3]:2}"
        for a, b, exact in zip(direct, results(*arrays), right, strict=True):
            errors = error(a, exact), error(b, exact)
            ratios.append(errors[1] / errors[0])
            line += "   {:.1e} {:.1e} {:4.2f}".format(*errors, ratios[-1])
        print(line, flush=True)
    return max(ratios)


def main() -> None:
    largest = max(compare(*setting) for setting in NETWORKS.items())
    print(f"\nlargest ratio: {largest:.2f}")


if __name__ == "__main__":
    main()
