"""What users wrap their networks in."""

from chainer_mmix.links.classifier import ManifoldMixupClassifier
from chainer_mmix.links.layers import MixupLayers
from chainer_mmix.links.sequential import MixupSequential

__all__ = ["ManifoldMixupClassifier", "MixupLayers", "MixupSequential"]
