"""Wrappers that make a network mix, and the classifier that trains it."""

from chainer_mmix.links.classifier import ManifoldMixupClassifier
from chainer_mmix.links.layers import MixupLayers
from chainer_mmix.links.sequential import MixupSequential

__all__ = ["ManifoldMixupClassifier", "MixupLayers", "MixupSequential"]
