"""Reference predictors that obey the mixing contract."""

from chainer_mmix.models.cnn import CNN
from chainer_mmix.models.elucnn import ELUCNN
from chainer_mmix.models.make import make_model
from chainer_mmix.models.preactresnet import (
    PreActResNet,
    PreActResNet18,
    PreActResNet34,
    PreActResNet50,
    PreActResNet101,
    PreActResNet152,
)
from chainer_mmix.models.pretrained import load_pretrained
from chainer_mmix.models.resnet import (
    ResNet,
    ResNet18,
    ResNet34,
    ResNet50,
    ResNet101,
    ResNet152,
)
from chainer_mmix.models.staged import Staged
from chainer_mmix.models.torchvision import to_torchvision
from chainer_mmix.models.wideresnet import WideResNet, WideResNet28_10

# All are made with n_class=; subclasses of ResNet take stem= and downsample_fb= too,
# those of PreActResNet and WideResNet published= and stem_stride=.
MODELS: dict[str, type[Staged]] = {
    "resnet50": ResNet50,
    "resnet18": ResNet18,
    "resnet34": ResNet34,
    "resnet101": ResNet101,
    "resnet152": ResNet152,
    "preactresnet18": PreActResNet18,
    "preactresnet34": PreActResNet34,
    "preactresnet50": PreActResNet50,
    "preactresnet101": PreActResNet101,
    "preactresnet152": PreActResNet152,
    "wideresnet28_10": WideResNet28_10,
    "cnn": CNN,
    "elucnn": ELUCNN,
}

__all__ = [
    "CNN",
    "ELUCNN",
    "MODELS",
    "PreActResNet",
    "PreActResNet18",
    "PreActResNet34",
    "PreActResNet50",
    "PreActResNet101",
    "PreActResNet152",
    "ResNet",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "WideResNet",
    "WideResNet28_10",
    "load_pretrained",
    "make_model",
    "to_torchvision",
]
