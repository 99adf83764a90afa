"""Random transforms of training images, to be composed."""

from chainer_mmix.datasets.transforms.affine import Affine, QuarterTurn
from chainer_mmix.datasets.transforms.base import Compose, Transform, transformed
from chainer_mmix.datasets.transforms.colour import Brightness, ColourJitter
from chainer_mmix.datasets.transforms.crop import Cutout, Flip, PadCrop

__all__ = [
    "Affine",
    "Brightness",
    "ColourJitter",
    "Compose",
    "Cutout",
    "Flip",
    "PadCrop",
    "QuarterTurn",
    "Transform",
    "transformed",
]
