from __future__ import annotations

from collections.abc import Callable, Sequence

import chainer
import chainer.functions as F
import chainer.links as L
from chainer.initializers import HeNormal

from .staged import Stage, Staged


class PreActResNet(Staged):
    """Pre-activation ResNets for CIFAR: the base of :class:`PreActResNet18` etc.

    Mixing points are numbered as in the paper: 0 the input, 1 to 4 after ``block1`` to
    ``block4``, the residual stages. By default it mixes at 0, 1 and 2, the paper's set.
    There is no point between the first convolution and ``block1``, as in the published
    code. Point 4 lies before the global pooling and the linear layer, which are linear:
    it mixes logits.

    The architecture is that of the paper's code, which took it from kuangliu's
    pytorch-cifar: a 3x3 convolution, four stages, and then the pooling at once, without
    the batch normalisation and ReLU that arXiv 1603.05027 puts after the last unit.
    A shortcut that changes the shape starts from the activated input of its unit. The
    pooling is global, where the code pools 4x4 pixels, which is the same at 32x32.
    Convolutions are drawn by :class:`chainer.initializers.HeNormal` (fan-in).

    Source: arXiv 1603.05027; mixing set: arXiv 1806.05236, section 5, and
    ``supervised/models/preresnet.py`` of vikasverma1077/manifold_mixup.

    Args:
        n_class (int): The number of outputs.
    """

    mixup_layers = (0, 1, 2, 3, 4)
    default_layer_mix = (0, 1, 2)

    n_units: tuple[int, int, int, int]
    bottleneck: bool

    def __init__(self, n_class: int) -> None:
        super().__init__()
        if self.bottleneck:
            unit, channels = PreActBottleneck, (256, 512, 1024, 2048)
        else:
            unit, channels = PreActUnit, (64, 128, 256, 512)
        n = self.n_units
        with self.init_scope():
            self.conv1 = L.Convolution2D(
                None, 64, 3, 1, 1, nobias=True, initialW=HeNormal()
            )
            self.block1 = Stage(unit, n[0], 64, channels[0], 1)
            self.block2 = Stage(unit, n[1], channels[0], channels[1], 2)
            self.block3 = Stage(unit, n[2], channels[1], channels[2], 2)
            self.block4 = Stage(unit, n[3], channels[2], channels[3], 2)
            self.fc = L.Linear(channels[3], n_class)

    def stages(self) -> Sequence[Callable]:
        return self.stage1, self.block2, self.block3, self.block4

    def stage1(self, x) -> chainer.Variable:
        return self.block1(self.conv1(x))

    def head(self, h: chainer.Variable) -> chainer.Variable:
        return self.fc(F.average(h, axis=(2, 3)))


class PreActResNet18(PreActResNet):
    """PreActResNet-18 of two-convolution units, see :class:`PreActResNet`."""

    n_units = (2, 2, 2, 2)
    bottleneck = False


class PreActResNet34(PreActResNet):
    """PreActResNet-34 of two-convolution units, see :class:`PreActResNet`."""

    n_units = (3, 4, 6, 3)
    bottleneck = False


class PreActResNet50(PreActResNet):
    """PreActResNet-50 of bottlenecks, see :class:`PreActResNet`."""

    n_units = (3, 4, 6, 3)
    bottleneck = True


class PreActResNet101(PreActResNet):
    """PreActResNet-101 of bottlenecks, see :class:`PreActResNet`."""

    n_units = (3, 4, 23, 3)
    bottleneck = True


class PreActResNet152(PreActResNet):
    """PreActResNet-152 of bottlenecks, see :class:`PreActResNet`."""

    n_units = (3, 8, 36, 3)
    bottleneck = True


class PreActUnit(chainer.Chain):
    """Twice batch normalisation, ReLU and a 3x3 convolution; and a shortcut.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int): Stride of the first convolution and of the shortcut.
        dropout (float): Share of the second convolution's input that is dropped in
            training. The default is 0.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        conv = {"nobias": True, "initialW": HeNormal()}
        with self.init_scope():
            self.bn1 = L.BatchNormalization(in_channels)
            self.conv1 = L.Convolution2D(
                in_channels, out_channels, 3, stride, 1, **conv
            )
            self.bn2 = L.BatchNormalization(out_channels)
            self.conv2 = L.Convolution2D(out_channels, out_channels, 3, 1, 1, **conv)
            self.shortcut = _shortcut(in_channels, out_channels, stride)

    def forward(self, x) -> chainer.Variable:
        activated = F.relu(self.bn1(x))
        h = F.relu(self.bn2(self.conv1(activated)))
        if self.dropout:
            h = F.dropout(h, self.dropout)
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return self.conv2(h) + shortcut


class PreActBottleneck(chainer.Chain):
    """Three convolutions, 1x1, 3x3 and 1x1, each after batch normalisation and ReLU.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output; the first two convolutions have a
            quarter of them.
        stride (int): Stride of the 3x3 convolution and of the shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        mid = out_channels // 4
        conv = {"nobias": True, "initialW": HeNormal()}
        with self.init_scope():
            self.bn1 = L.BatchNormalization(in_channels)
            self.conv1 = L.Convolution2D(in_channels, mid, 1, **conv)
            self.bn2 = L.BatchNormalization(mid)
            self.conv2 = L.Convolution2D(mid, mid, 3, stride, 1, **conv)
            self.bn3 = L.BatchNormalization(mid)
            self.conv3 = L.Convolution2D(mid, out_channels, 1, **conv)
            self.shortcut = _shortcut(in_channels, out_channels, stride)

    def forward(self, x) -> chainer.Variable:
        activated = F.relu(self.bn1(x))
        h = self.conv1(activated)
        h = self.conv2(F.relu(self.bn2(h)))
        h = self.conv3(F.relu(self.bn3(h)))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return h + shortcut


def _shortcut(in_channels: int, out_channels: int, stride: int) -> chainer.Link | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return L.Convolution2D(
        in_channels, out_channels, 1, stride, nobias=True, initialW=HeNormal()
    )
