from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import chainer
import chainer.functions as F
import chainer.links as L
from chainer.initializers import HeNormal
from chainer.links.model.vision.resnet import BuildingBlock

from chainer_mmix.checks import check_whole
from chainer_mmix.models.staged import Stage, Staged

STEMS = ("imagenet", "cifar", "torchvision")


class ResNet(Staged):
    """ResNets with stems for ImageNet and CIFAR: the base of :class:`ResNet18` etc.

    Mixing points: 0 the input, 1 after the stem, 2 to 5 after ``res2`` to ``res5``. By
    default it mixes at 0, 2 and 3: the input and the outputs of the first two residual
    stages, which is the set that the paper uses. Point 5 lies before the global pooling
    and the linear layer, so that it mixes logits in effect; it is there to be asked
    for.

    Children are named as in :class:`chainer.links.ResNet50Layers`, and so that its
    weights fit, the 7x7 convolution of :class:`ResNet50`, 101 and 152 has a bias.
    Convolutions are drawn by :class:`chainer.initializers.HeNormal` (fan-in), as there.

    Source: arXiv 1512.03385; mixing set: arXiv 1806.05236, sections 5 and B.

    Args:
        n_class (int): The number of outputs.
        stem (str): What comes before the residual stages: ``"imagenet"``, a 7x7
            convolution of stride 2 and pooling, so that 32x32 pixels become 8x8;
            ``"cifar"``, a 3x3 convolution, which keeps the size; or ``"torchvision"``,
            as ``"imagenet"`` but without a bias, and with windows of the pooling that
            begin one pixel earlier. The last makes the network torchvision's and
            timm's, with eps 1e-5 of batch normalisation and ``downsample_fb=True``. The
            default is ``"imagenet"``.
        downsample_fb (bool): Whether the stride of a bottleneck is in its 3x3
            convolution, as in Facebook's and torchvision's networks, or in its first
            1x1 convolution, as in the original ones. The basic units of
            :class:`ResNet18` and 34 have no other than 3x3. The default is ``False``.

    Raises:
        ValueError: If there is no such stem, or ``n_class`` is not a whole number >= 1,
            or later, if images are too small for the stem.
    """

    mixup_layers = (0, 1, 2, 3, 4, 5)
    default_layer_mix = (0, 2, 3)

    n_units: tuple[int, int, int, int]
    bottleneck: bool

    def __init__(
        self, n_class: int, stem: str = "imagenet", downsample_fb: bool = False
    ) -> None:
        check_whole("n_class", n_class, 1)
        if stem not in STEMS:
            names = " or ".join(map(repr, STEMS))
            raise ValueError(f"stem must be {names}, not {stem!r}")
        super().__init__()
        self.stem_name = stem
        self.downsample_fb = downsample_fb or stem == "torchvision"
        he = {"initialW": HeNormal()}
        if self.bottleneck:
            stage, channels = self._bottlenecks, (256, 512, 1024, 2048)
        else:
            stage, channels = partial(Stage, BasicUnit), (64, 128, 256, 512)
        n = self.n_units
        with self.init_scope():
            if stem == "cifar":
                self.conv1 = L.Convolution2D(None, 64, 3, 1, 1, nobias=True, **he)
            else:
                nobias = stem == "torchvision" or not self.bottleneck
                self.conv1 = L.Convolution2D(None, 64, 7, 2, 3, nobias=nobias, **he)
            self.bn1 = L.BatchNormalization(64)
            self.res2 = stage(n[0], 64, channels[0], 1)
            self.res3 = stage(n[1], channels[0], channels[1], 2)
            self.res4 = stage(n[2], channels[1], channels[2], 2)
            self.res5 = stage(n[3], channels[2], channels[3], 2)
            self.fc6 = L.Linear(channels[3], n_class)
        if stem == "torchvision":
            # It tells these weights from others of the same shapes.
            self.add_persistent("torchvision", True)
            for link in self.links():
                if isinstance(link, L.BatchNormalization):
                    link.eps = 1e-5

    def _bottlenecks(
        self, n_units: int, in_channels: int, out_channels: int, stride: int
    ) -> chainer.Link:
        return BuildingBlock(
            n_units,
            in_channels,
            out_channels // 4,
            out_channels,
            stride,
            initialW=HeNormal(),
            downsample_fb=self.downsample_fb,
        )

    def stages(self) -> Sequence[Callable]:
        return self.stem, self.res2, self.res3, self.res4, self.res5

    def stem(self, x) -> chainer.Variable:
        if self.stem_name == "imagenet" and min(x.shape[2:], default=3) < 3:
            size = "x".join(map(str, x.shape[2:]))
            raise ValueError(
                f"images of {size} pixels are too small for the stem 'imagenet', which "
                "takes 3x3 or more: give larger images, or choose the stem 'cifar'"
            )
        h = F.relu(self.bn1(self.conv1(x)))
        if self.stem_name == "cifar":
            return h
        if self.stem_name == "torchvision":
            return F.max_pooling_2d(h, 3, stride=2, pad=1, cover_all=False)
        return F.max_pooling_2d(h, 3, stride=2)

    def head(self, h: chainer.Variable) -> chainer.Variable:
        return self.fc6(F.average(h, axis=(2, 3)))


class ResNet18(ResNet):
    """ResNet-18 of basic units, see :class:`ResNet`."""

    n_units = (2, 2, 2, 2)
    bottleneck = False


class ResNet34(ResNet):
    """ResNet-34 of basic units, see :class:`ResNet`."""

    n_units = (3, 4, 6, 3)
    bottleneck = False


class ResNet50(ResNet):
    """ResNet-50 of bottlenecks, see :class:`ResNet`."""

    n_units = (3, 4, 6, 3)
    bottleneck = True


class ResNet101(ResNet):
    """ResNet-101 of bottlenecks, see :class:`ResNet`."""

    n_units = (3, 4, 23, 3)
    bottleneck = True


class ResNet152(ResNet):
    """ResNet-152 of bottlenecks, see :class:`ResNet`."""

    n_units = (3, 8, 36, 3)
    bottleneck = True


class BasicUnit(chainer.Chain):
    """Two 3x3 convolutions and a shortcut, which Chainer has no link for.

    Where the shape changes, ``conv3`` and ``bn3`` are the shortcut, numbered on as
    ``conv4`` and ``bn4`` are in Chainer's ``BottleneckA``.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int): Stride of the first convolution and of the shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self._projects = stride != 1 or in_channels != out_channels
        conv = {"nobias": True, "initialW": HeNormal()}
        with self.init_scope():
            self.conv1 = L.Convolution2D(
                in_channels, out_channels, 3, stride, 1, **conv
            )
            self.bn1 = L.BatchNormalization(out_channels)
            self.conv2 = L.Convolution2D(out_channels, out_channels, 3, 1, 1, **conv)
            self.bn2 = L.BatchNormalization(out_channels)
            if self._projects:
                self.conv3 = L.Convolution2D(
                    in_channels, out_channels, 1, stride, **conv
                )
                self.bn3 = L.BatchNormalization(out_channels)

    def forward(self, x) -> chainer.Variable:
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        shortcut = self.bn3(self.conv3(x)) if self._projects else x
        return F.relu(h + shortcut)
