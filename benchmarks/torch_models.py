"""The reference networks in PyTorch, layer by layer as in ``models/``."""

from __future__ import annotations

import torch
from torch import nn


class Bottleneck(nn.Module):
    """A residual block with its stride in the first convolution, as Chainer's."""

    def __init__(self, c_in: int, c: int, c_out: int, stride: int, first: bool):
        super().__init__()
        self.main = nn.Sequential(
            *convolve(c_in, c, 1, stride),
            nn.ReLU(),
            *convolve(c, c, 3, 1),
            nn.ReLU(),
            *convolve(c, c_out, 1, 1),
        )
        self.skip = nn.Sequential(*convolve(c_in, c_out, 1, stride) if first else ())

    def forward(self, x):
        return torch.relu(self.main(x) + self.skip(x))


def convolve(c_in: int, c_out: int, kernel: int, stride: int):
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(c_out)


def resnet50(channels: int) -> nn.Module:
    blocks, c_in = [], 64
    for n, c, stride in ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)):
        for i in range(n):
            blocks.append(Bottleneck(c_in, c, 4 * c, 1 if i else stride, i == 0))
            c_in = 4 * c
    stem = nn.Conv2d(channels, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU()
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, 10)
    return nn.Sequential(*stem, pool, *blocks, *head)


def cnn(channels: int) -> nn.Module:
    layers = []
    for c_in, c_out in ((channels, 32), (32, 32), (32, 64), (64, 64)):
        layers += nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU()
        if c_in == c_out:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    return nn.Sequential(*layers, *head)


def step(network: str, x, t):
    """Returns a training step as that of the other benchmarks."""
    model = {"ResNet50": resnet50, "CNN": cnn}[network](x.shape[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    x, t = torch.from_numpy(x), torch.from_numpy(t).long()

    def call():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), t).backward()
        optimizer.step()

    return call
