from __future__ import annotations

from collections.abc import Callable, Sequence

import chainer
import chainer.functions as F
import chainer.links as L
from chainer.initializers import HeNormal

from chainer_mmix.checks import check_whole
from chainer_mmix.models.staged import Staged


class CNN(Staged):
    """A small network for images of 8x8 to 32x32 pixels, trained in seconds on a CPU.

    Two blocks of two 3x3 convolutions, each block ended by pooling, then global average
    pooling and a linear layer. There is no batch normalisation: in the few steps that
    such a network takes, statistics of mixed batches do not suit the unmixed images of
    an evaluation. Mixing points, all of them drawn from by default: 0 the input, 1 and
    2 after the blocks.

    Args:
        n_class (int): The number of outputs.
        width (int): Channels of the first block; the second has twice as many. The
            default is 32.

    Raises:
        ValueError: If ``n_class`` is not a whole number >= 1.
    """

    mixup_layers = (0, 1, 2)
    default_layer_mix = (0, 1, 2)

    def __init__(self, n_class: int, width: int = 32) -> None:
        check_whole("n_class", n_class, 1)
        super().__init__()
        with self.init_scope():
            self.block1 = _Block(width)
            self.block2 = _Block(2 * width)
            self.fc = L.Linear(2 * width, n_class)

    def stages(self) -> Sequence[Callable]:
        return self.block1, self.block2

    def head(self, h: chainer.Variable) -> chainer.Variable:
        return self.fc(F.average(h, axis=(2, 3)))


class _Block(chainer.Chain):
    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = {"ksize": 3, "pad": 1, "initialW": HeNormal()}
        with self.init_scope():
            self.conv1 = L.Convolution2D(None, channels, **conv)
            self.conv2 = L.Convolution2D(channels, channels, **conv)

    def forward(self, x) -> chainer.Variable:
        h = F.relu(self.conv2(F.relu(self.conv1(x))))
        return F.max_pooling_2d(h, 2)
