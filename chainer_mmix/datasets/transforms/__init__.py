"""Random transforms of training images, to be composed."""

from .affine import Affine, QuarterTurn
from .base import Compose, Transform, transformed
from .colour import Brightness, ColourJitter
from .crop import Cutout, Flip, PadCrop

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
