from __future__ import annotations

from collections.abc import Callable, Sequence

import chainer
import chainer.functions as F
import chainer.links as L
from chainer.initializers import GlorotUniform

from chainer_mmix.checks import check_whole
from chainer_mmix.models.staged import Staged


class ELUCNN(Staged):
    """The network of a Keras notebook on Manifold Mixup, for images of 32x32 pixels.

    Two blocks of two 3x3 convolutions, each with ELU and batch normalisation, pooling
    and dropout; then a linear layer. Initial weights and batch normalisation are as in
    Keras. Mixing points: 0 the input, 1 and 2 after the blocks; the notebook mixes at
    1, the default.

    Source: ``Manifold Mixup.ipynb`` of xapharius/mlscripts.

    Args:
        n_class (int): The number of outputs.

    Raises:
        ValueError: If ``n_class`` is not a whole number >= 1.
    """

    mixup_layers = (0, 1, 2)
    default_layer_mix = (1,)

    def __init__(self, n_class: int) -> None:
        check_whole("n_class", n_class, 1)
        super().__init__()
        with self.init_scope():
            self.block1 = _Block(32, 0.2)
            self.block2 = _Block(64, 0.3)
            self.fc = L.Linear(None, n_class, initialW=GlorotUniform())

    def stages(self) -> Sequence[Callable]:
        return self.block1, self.block2

    def head(self, h: chainer.Variable) -> chainer.Variable:
        return self.fc(h)


class _Block(chainer.Chain):
    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        conv = {"ksize": 3, "pad": 1, "initialW": GlorotUniform()}
        with self.init_scope():
            self.conv1 = L.Convolution2D(None, channels, **conv)
            self.bn1 = L.BatchNormalization(channels, decay=0.99, eps=1e-3)
            self.conv2 = L.Convolution2D(channels, channels, **conv)
            self.bn2 = L.BatchNormalization(channels, decay=0.99, eps=1e-3)

    def forward(self, x) -> chainer.Variable:
        h = self.bn1(F.elu(self.conv1(x)))
        h = self.bn2(F.elu(self.conv2(h)))
        return F.dropout(F.max_pooling_2d(h, 2), self.dropout)
