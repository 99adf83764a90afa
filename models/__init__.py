"""Reference predictors that obey the mixing contract."""

from .cnn import CNN
from .resnet50 import ResNet50

MODELS = {"resnet50": ResNet50, "cnn": CNN}

__all__ = ["CNN", "MODELS", "ResNet50"]
