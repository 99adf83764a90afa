"""Twelve steps of the paper's published code in PyTorch, kept for a test.

``python tests/published_steps.py`` writes ``published_steps.npz`` beside it, and needs
the extra ``bench``; ``test_published_steps.py`` repeats the steps in Chainer. The
networks are those of ``supervised/models`` of vikasverma1077/manifold_mixup, thinner,
in float64.
"""

import re
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
N, C = 8, 5
LR, MOMENTUM, DECAY = 0.1, 0.9, 5e-3


def rate(step):
    """The learning rate drops at the seventh step."""
    return LR if step < 6 else LR / 10


def batches():
    """Yields images, labels, λ, partners and the mixing point of each step."""
    random = np.random.RandomState(1)
    for step in range(12):
        x = random.standard_normal((N, 3, 8, 8))
        t = random.randint(0, C, N)
        yield x, t, random.beta(2, 2), random.permutation(N), step % 3


def draw(shapes):
    """Draws the first weights, from shapes by the names that they have in Chainer."""
    random = np.random.RandomState(0)
    drawn = {}
    for name, shape in sorted(shapes.items()):
        kind = name.rpartition("/")[2]
        if kind == "W":
            bound = np.prod(shape[1:]) ** -0.5
            drawn[name] = random.uniform(-bound, bound, shape)
        else:
            drawn[name] = random.uniform(-0.2, 0.2, shape) + (kind == "gamma")
    return drawn


def chainers_name(name):
    """Translates PyTorch's name of a weight or a running statistic."""
    name = re.sub(r"layer(\d)\.0\.", r"block\1.a.", name)
    name = re.sub(r"layer(\d)\.(\d)\.", r"block\1.b\2.", name)
    name = name.replace("shortcut.0.", "shortcut.").replace("linear.", "fc.")
    name = re.sub(r"^bn1\.", "bn.", name)
    norm = {"weight": "gamma", "bias": "beta"}
    norm |= {"running_mean": "avg_mean", "running_var": "avg_var"}
    *link, kind = name.split(".")
    kinds = norm if link[-1].startswith("bn") else {"weight": "W", "bias": "b"}
    return "/".join([*link, kinds[kind]])


def networks():
    """The networks of ``preresnet.py`` and ``wide_resnet.py``."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class PreActBlock(nn.Module):
        bias = False

        def __init__(self, in_planes, planes, stride):
            super().__init__()
            self.bn1 = nn.BatchNorm2d(in_planes)
            self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
            if stride != 1 or in_planes != planes:
                conv = nn.Conv2d(in_planes, planes, 1, stride, bias=False)
                self.shortcut = nn.Sequential(conv)

        def forward(self, x):
            out = F.relu(self.bn1(x))
            shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
            out = self.conv1(out)
            return self.conv2(F.relu(self.bn2(out))) + shortcut

    class WideBasic(nn.Module):
        bias = True

        def __init__(self, in_planes, planes, stride):
            super().__init__()
            self.bn1 = nn.BatchNorm2d(in_planes)
            self.conv1 = nn.Conv2d(in_planes, planes, 3, padding=1)
            self.bn2 = nn.BatchNorm2d(planes)
            self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1)
            self.shortcut = nn.Sequential()
            if stride != 1 or in_planes != planes:
                self.shortcut = nn.Sequential(nn.Conv2d(in_planes, planes, 1, stride))

        def forward(self, x):
            out = self.conv1(F.relu(self.bn1(x)))
            return self.conv2(F.relu(self.bn2(out))) + self.shortcut(x)

    class Net(nn.Module):
        def __init__(self, block, first, channels, n_block):
            super().__init__()
            self.conv1 = nn.Conv2d(3, first, 3, 1, 1, bias=block.bias)
            self.n = len(channels)
            planes = [first, *channels]
            for i in range(self.n):
                strides = [1 if i == 0 else 2, *[1] * (n_block - 1)]
                ins = [planes[i], *[planes[i + 1]] * (n_block - 1)]
                units = map(block, ins, [planes[i + 1]] * n_block, strides)
                setattr(self, f"layer{i + 1}", nn.Sequential(*units))
            if block is WideBasic:
                self.bn1 = nn.BatchNorm2d(planes[-1], momentum=0.9)
            self.linear = nn.Linear(planes[-1], C)

        def forward(self, x, target, lam, indices, layer_mix):
            def mixup_process(out):
                mixed = target * lam + target[indices] * (1 - lam)
                return out * lam + out[indices] * (1 - lam), mixed

            out = x
            if layer_mix == 0:
                out, mixed = mixup_process(out)
            out = self.layer1(self.conv1(out))
            if layer_mix == 1:
                out, mixed = mixup_process(out)
            out = self.layer2(out)
            if layer_mix == 2:
                out, mixed = mixup_process(out)
            for i in range(3, self.n + 1):
                out = getattr(self, f"layer{i}")(out)
            if hasattr(self, "bn1"):
                out = F.relu(self.bn1(out))
            out = F.avg_pool2d(out, out.shape[2])
            return self.linear(out.view(out.size(0), -1)), mixed

    torch.set_default_dtype(torch.float64)
    return {
        "preactresnet18": Net(PreActBlock, 2, [2, 4, 8, 16], 2),
        "wideresnet10": Net(WideBasic, 16, [16, 32, 64], 1),
    }


def train(net):
    """Trains as ``main.py`` does; returns the loss of each step."""
    import torch
    from torch import nn

    names = {name: chainers_name(name) for name, _ in net.named_parameters()}
    first = draw({names[n]: tuple(p.shape) for n, p in net.named_parameters()})
    with torch.no_grad():
        for name, param in net.named_parameters():
            param.copy_(torch.from_numpy(first[names[name]]))
    optimizer = torch.optim.SGD(
        net.parameters(), LR, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True
    )
    softmax, bce_loss = nn.Softmax(dim=1), nn.BCELoss()
    losses = []
    for step, (x, t, lam, perm, point) in enumerate(batches()):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        target = torch.from_numpy(np.eye(C)[t])
        output, mixed = net(torch.from_numpy(x), target, lam, perm, point)
        loss = bce_loss(softmax(output), mixed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    saved = {}
    for name, net in networks().items():
        saved[f"{name}/losses"] = train(net)
        for key, value in net.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                array = value.numpy()
                saved[f"{name}/{chainers_name(key)}"] = thin(array)
    np.savez_compressed(FILE, **saved)


def thin(array):
    """Some 200 of many weights: they depend on all the others."""
    return array.ravel()[:: max(1, array.size // 200)]


if __name__ == "__main__":
    main()
