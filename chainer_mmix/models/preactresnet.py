from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import chainer
import chainer.functions as F

from chainer_mmix.checks import check_whole
from chainer_mmix.models.layers import Layers
from chainer_mmix.models.staged import Stage, Staged


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

    Source: arXiv 1603.05027; mixing set: arXiv 1806.05236, section 5, and
    ``supervised/models/preresnet.py`` of vikasverma1077/manifold_mixup.

    Args:
        n_class (int): The number of outputs.
        published (bool): Whether to begin as the paper's code does: all weights and
            biases uniform up to 1 / sqrt(fan-in), eps of batch normalisation 1e-5. By
            default convolutions are drawn by :class:`chainer.initializers.HeNormal`
            (fan-in), with 2.45 times that standard deviation, the bias is 0, and eps is
            2e-5, as in Chainer. The default is ``False``.
        width (int): Channels of the first stage. The default is 64, as published.
        stem_stride (int): Stride of the first convolution; the paper's code has 2 for
            Tiny ImageNet. The default is 1.

    Raises:
        ValueError: If ``n_class`` is not a whole number >= 1.
    """

    mixup_layers = (0, 1, 2, 3, 4)
    default_layer_mix = (0, 1, 2)

    n_units: tuple[int, int, int, int]
    bottleneck: bool

    def __init__(
        self,
        n_class: int,
        published: bool = False,
        width: int = 64,
        stem_stride: int = 1,
    ) -> None:
        check_whole("n_class", n_class, 1)
        super().__init__(published)
        layers = Layers(published)
        make = PreActBottleneck if self.bottleneck else PreActUnit
        unit, n = partial(make, layers=layers), self.n_units
        channels = [(4 if self.bottleneck else 1) * width * k for k in (1, 2, 4, 8)]
        with self.init_scope():
            self.conv1 = layers.convolution(None, width, 3, stem_stride)
            self.block1 = Stage(unit, n[0], width, channels[0], 1)
            self.block2 = Stage(unit, n[1], channels[0], channels[1], 2)
            self.block3 = Stage(unit, n[2], channels[1], channels[2], 2)
            self.block4 = Stage(unit, n[3], channels[2], channels[3], 2)
            self.fc = layers.linear(channels[3], n_class)

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
        layers (Layers): Makes the layers.
        dropout (float): Share of the second convolution's input that is dropped in
            training. The default is 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        layers: Layers,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        with self.init_scope():
            self.bn1 = layers.batch_normalization(in_channels)
            self.conv1 = layers.convolution(in_channels, out_channels, 3, stride)
            self.bn2 = layers.batch_normalization(out_channels)
            self.conv2 = layers.convolution(out_channels, out_channels, 3)
            self.shortcut = _shortcut(in_channels, out_channels, stride, layers)

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
        layers (Layers): Makes the layers.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        layers: Layers,
    ) -> None:
        super().__init__()
        mid = out_channels // 4
        with self.init_scope():
            self.bn1 = layers.batch_normalization(in_channels)
            self.conv1 = layers.convolution(in_channels, mid, 1)
            self.bn2 = layers.batch_normalization(mid)
            self.conv2 = layers.convolution(mid, mid, 3, stride)
            self.bn3 = layers.batch_normalization(mid)
            self.conv3 = layers.convolution(mid, out_channels, 1)
            self.shortcut = _shortcut(in_channels, out_channels, stride, layers)

    def forward(self, x) -> chainer.Variable:
        activated = F.relu(self.bn1(x))
        h = self.conv1(activated)
        h = self.conv2(F.relu(self.bn2(h)))
        h = self.conv3(F.relu(self.bn3(h)))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return h + shortcut


def _shortcut(
    in_channels: int, out_channels: int, stride: int, layers: Layers
) -> chainer.Link | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return layers.convolution(in_channels, out_channels, 1, stride)
