from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import chainer
import chainer.functions as F

from chainer_mmix.checks import check_whole
from chainer_mmix.models.layers import Layers
from chainer_mmix.models.preactresnet import PreActUnit
from chainer_mmix.models.staged import Stage, Staged


class WideResNet(Staged):
    """Wide ResNets for CIFAR, WRN-depth-width.

    Mixing points are numbered as in the paper's code: 0 the input, 1 to 3 after
    ``block1`` to ``block3``, the residual stages. By default it mixes at 0, 1 and 2.
    There is no point between the first convolution and ``block1``. Batch normalisation
    and ReLU follow on point 3.

    The architecture is that of Zagoruyko and Komodakis, whose WRN-28-10 has 36.5
    million parameters: no biases, the stride in the first convolution of a unit, the
    shortcut starting from the activated input where the channels change. The code of
    the Manifold Mixup paper differs: its convolutions have biases, the stride is in the
    second one, all shortcuts start from the plain input, and the last batch
    normalisation, whose momentum PyTorch counts the other way round, keeps a tenth of
    its running statistics in a step, not nine tenths.

    Source: arXiv 1605.07146 and szagoruyko/wide-residual-networks; mixing set:
    ``supervised/models/wide_resnet.py`` of vikasverma1077/manifold_mixup.

    Args:
        n_class (int): The number of outputs.
        depth (int): 6n + 4, for n units in each of the three stages. The default is
            28.
        width (int): Channels are 16, 32 and 64 times this. The default is 10.
        dropout (float): Share of the second convolutions' inputs that is dropped in
            training. The default is 0; arXiv 1605.07146 uses 0.3 and 0.4 in some
            experiments, the Manifold Mixup paper none.
        published (bool): Whether to be the network of the Manifold Mixup paper's code,
            and begin as it does: all weights and biases uniform up to 1 / sqrt(fan-in),
            eps of batch normalisation 1e-5. By default convolutions are drawn by
            :class:`chainer.initializers.HeNormal` (fan-in), the bias is 0, and eps is
            2e-5, as in Chainer. The default is ``False``.
        stem_stride (int): Stride of the first convolution; the paper's code has 2 for
            Tiny ImageNet. The default is 1.

    Raises:
        ValueError: If there is no network of that depth or width, ``n_class`` is not a
            whole number >= 1, or for ``dropout`` with ``published``, whose code has
            none.
    """

    mixup_layers = (0, 1, 2, 3)
    default_layer_mix = (0, 1, 2)

    def __init__(
        self,
        n_class: int,
        depth: int = 28,
        width: int = 10,
        dropout: float = 0.0,
        published: bool = False,
        stem_stride: int = 1,
    ) -> None:
        check_whole("n_class", n_class, 1)
        n_units, rest = divmod(depth - 4, 6)
        if n_units < 1 or rest:
            near = sorted({6 * max(1, n) + 4 for n in (n_units, n_units + 1)})
            raise ValueError(
                f"depth must be 6n + 4, and 10 at least, not {depth}: the nearest is "
                f"{' or '.join(map(str, near))}"
            )
        if width < 1:
            raise ValueError(f"width must be 1 or more, not {width}")
        if published and dropout:
            raise ValueError(
                f"the published network has no dropout, not one of {dropout}: leave "
                "out dropout or published"
            )
        super().__init__(published)
        layers = Layers(published)
        unit = partial(PreActUnit, dropout=dropout, layers=layers)
        if published:
            unit = partial(PublishedWideUnit, layers=layers)
        channels = [16 * width, 32 * width, 64 * width]
        with self.init_scope():
            self.conv1 = layers.convolution(
                None, 16, 3, stem_stride, nobias=not published
            )
            self.block1 = Stage(unit, n_units, 16, channels[0], 1)
            self.block2 = Stage(unit, n_units, channels[0], channels[1], 2)
            self.block3 = Stage(unit, n_units, channels[1], channels[2], 2)
            decay = 0.1 if published else 0.9
            self.bn = layers.batch_normalization(channels[2], decay)
            self.fc = layers.linear(channels[2], n_class)

    def stages(self) -> Sequence[Callable]:
        return self.stage1, self.block2, self.block3

    def stage1(self, x) -> chainer.Variable:
        return self.block1(self.conv1(x))

    def head(self, h: chainer.Variable) -> chainer.Variable:
        return self.fc(F.average(F.relu(self.bn(h)), axis=(2, 3)))


class WideResNet28_10(WideResNet):
    """WRN-28-10, the one in the paper, see :class:`WideResNet`."""

    def __init__(
        self,
        n_class: int,
        dropout: float = 0.0,
        published: bool = False,
        stem_stride: int = 1,
    ) -> None:
        super().__init__(n_class, 28, 10, dropout, published, stem_stride)


class PublishedWideUnit(chainer.Chain):
    """The unit of the Manifold Mixup paper's code, ``wide_basic``.

    Twice batch normalisation, ReLU and a 3x3 convolution with biases; and the plain
    input, or a 1x1 convolution of it, with biases, where the shape changes.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int): Stride of the second convolution and of the shortcut.
        layers (Layers): Makes the layers.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, layers: Layers
    ) -> None:
        super().__init__()
        conv = partial(layers.convolution, nobias=False)
        with self.init_scope():
            self.bn1 = layers.batch_normalization(in_channels)
            self.conv1 = conv(in_channels, out_channels, 3)
            self.bn2 = layers.batch_normalization(out_channels)
            self.conv2 = conv(out_channels, out_channels, 3, stride)
            self.shortcut = (
                None
                if stride == 1 and in_channels == out_channels
                else conv(in_channels, out_channels, 1, stride)
            )

    def forward(self, x) -> chainer.Variable:
        h = self.conv1(F.relu(self.bn1(x)))
        h = self.conv2(F.relu(self.bn2(h)))
        return h + (x if self.shortcut is None else self.shortcut(x))
