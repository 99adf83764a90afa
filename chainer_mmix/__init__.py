"""Manifold Mixup for Chainer."""

import chainer_revive  # noqa: F401, I001  (Chainer needs it imported first)

from chainer_mmix.links import ManifoldMixupClassifier, MixupLayers, MixupSequential
from chainer_mmix.mixing import MixupPolicy, current_draw, mix, mixup_data
from chainer_mmix.training.extensions import MixupReport

__version__ = "0.2.0.dev0"

__all__ = [
    "ManifoldMixupClassifier",
    "MixupLayers",
    "MixupPolicy",
    "MixupReport",
    "MixupSequential",
    "current_draw",
    "mix",
    "mixup_data",
]
