from __future__ import annotations

from collections.abc import Callable, Sequence

import chainer
import chainer.functions as F
import chainer.links as L
from chainer.initializers import HeNormal
from chainer.links.model.vision.resnet import BuildingBlock

from .staged import Staged


class ResNet50(Staged):
    """ResNet-50 with the ImageNet stem, stride on the first 1x1 convolutions.

    Mixing points: 0 the input, 1 after the stem (``conv1``, ``bn1``, ReLU, pooling),
    2 to 5 after ``res2`` to ``res5``. By default it mixes at 0, 2 and 3: the input and
    the outputs of the first two residual stages, which is the set that the paper
    uses. Point 5 lies before the global pooling and the linear layer, so that it mixes
    logits in effect; it is there to be asked for.

    Children are named as in :class:`chainer.links.ResNet50Layers`.

    Source: arXiv 1512.03385; mixing set: arXiv 1806.05236, sections 5 and B.

    Args:
        n_class (int): The number of outputs.
    """

    mixup_layers = (0, 1, 2, 3, 4, 5)
    default_layer_mix = (0, 2, 3)

    def __init__(self, n_class: int) -> None:
        super().__init__()
        he = {"initialW": HeNormal()}
        with self.init_scope():
            self.conv1 = L.Convolution2D(None, 64, 7, 2, 3, **he)
            self.bn1 = L.BatchNormalization(64)
            self.res2 = BuildingBlock(3, 64, 64, 256, 1, **he)
            self.res3 = BuildingBlock(4, 256, 128, 512, 2, **he)
            self.res4 = BuildingBlock(6, 512, 256, 1024, 2, **he)
            self.res5 = BuildingBlock(3, 1024, 512, 2048, 2, **he)
            self.fc6 = L.Linear(2048, n_class)

    def stages(self) -> Sequence[Callable]:
        return self.stem, self.res2, self.res3, self.res4, self.res5

    def stem(self, x) -> chainer.Variable:
        return F.max_pooling_2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2)

    def head(self, h: chainer.Variable) -> chainer.Variable:
        return self.fc6(F.average(h, axis=(2, 3)))
