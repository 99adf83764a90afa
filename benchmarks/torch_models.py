"""The reference networks in PyTorch, layer by layer as in ``models/``."""

from __future__ import annotations

import torch
from torch import nn


class Staged(nn.Module):
    """Mixes at one point, 0 for the input and k for the output of stage k.

    As the paper's published code does.
    """

    def __init__(self, stages: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Identity(), *stages])
        self.head = head

    def forward(self, x, layer: int | None = None, lam=None, perm=None):
        for point, stage in enumerate(self.stages):
            x = stage(x)
            if point == layer:
                x = lam * x + (1 - lam) * x[perm]
        return self.head(x)


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


class PreActUnit(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x):
        activated = torch.relu(self.bn1(x))
        h = self.conv2(torch.relu(self.bn2(self.conv1(activated))))
        return h + (x if self.shortcut is None else self.shortcut(activated))


def preactresnet18() -> Staged:
    stages = _stages(PreActUnit, [2, 2, 2, 2], 64, [64, 128, 256, 512])
    first = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    return Staged([nn.Sequential(first, stages[0]), *stages[1:]], _head(512))


def wideresnet28_10() -> Staged:
    stages = _stages(PreActUnit, [4, 4, 4], 16, [160, 320, 640])
    first = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    head = nn.Sequential(nn.BatchNorm2d(640), nn.ReLU(), _head(640))
    return Staged([nn.Sequential(first, stages[0]), *stages[1:]], head)


def resnet50(stem: str) -> Staged:
    if stem == "imagenet":
        conv = nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64)
        pool = [nn.MaxPool2d(3, 2, ceil_mode=True)]
    else:
        conv, pool = convolve(3, 64, 3, 1), []

    def unit(c_in: int, c_out: int, stride: int) -> nn.Module:
        first = c_in != c_out
        return Bottleneck(c_in, c_out // 4, c_out, stride, first)

    stages = _stages(unit, [3, 4, 6, 3], 64, [256, 512, 1024, 2048])
    return Staged([nn.Sequential(*conv, nn.ReLU(), *pool), *stages], _head(2048))


def _stages(unit, n_units, c_in, channels) -> list[nn.Module]:
    stages = []
    for i, (n, c) in enumerate(zip(n_units, channels, strict=True)):
        units = [unit(c_in, c, 2 if i else 1), *(unit(c, c, 1) for _ in range(n - 1))]
        stages.append(nn.Sequential(*units))
        c_in = c
    return stages


def _head(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def cnn(channels: int) -> nn.Module:
    layers = []
    for c_in, c_out in ((channels, 32), (32, 32), (32, 64), (64, 64)):
        layers += nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU()
        if c_in == c_out:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers, _head(64))


def make(network: str, channels: int) -> nn.Module:
    return {
        "ResNet50": lambda: resnet50("imagenet"),
        "PreActResNet18": preactresnet18,
        "WideResNet28_10": wideresnet28_10,
        "CNN": lambda: cnn(channels),
    }[network]()


def step(network: str, x, t, option: str = ""):
    """Returns a training step as that of the other benchmarks.

    Args:
        option: ``"channels last"``, ``"compiled"`` (by ``torch.compile``, which needs a
            C++ compiler) or ``""``.
    """
    model = make(network, x.shape[1])
    x, t = torch.from_numpy(x), torch.from_numpy(t).long()
    if option == "channels last":
        model, x = in_channels_last(model, x)
    forward = torch.compile(model) if option == "compiled" else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def call():
        optimizer.zero_grad()
        nn.functional.cross_entropy(forward(x), t).backward()
        optimizer.step()

    return call


def evaluation(network: str, x, t, option: str = ""):
    """Returns an evaluation of a batch: its loss.

    Args:
        option: As for :func:`step`, or ``"folded"``, for batch normalisation in the
            convolution before it and channels last. What is compiled is folded too.
    """
    model = make(network, x.shape[1]).eval()
    x, t = torch.from_numpy(x), torch.from_numpy(t).long()
    if option in ("channels last", "folded"):
        model, x = in_channels_last(model, x)
    if option == "folded":
        fold(model)
    if option == "compiled":
        from torch._inductor import config

        config.freezing = True
        model = torch.compile(model)

    @torch.no_grad()
    def call():
        return nn.functional.cross_entropy(model(x), t)

    return call


def in_channels_last(model: nn.Module, x: torch.Tensor):
    layout = {"memory_format": torch.channels_last}
    return model.to(**layout), x.contiguous(**layout)


def fold(model: nn.Module) -> None:
    """Folds each batch normalisation into the convolution that it follows."""
    for part in list(model.modules()):
        if isinstance(part, nn.Sequential):
            for i in range(1, len(part)):
                if isinstance(part[i], nn.BatchNorm2d):
                    conv = torch.nn.utils.fuse_conv_bn_eval(part[i - 1], part[i])
                    part[i - 1], part[i] = conv, nn.Identity()
