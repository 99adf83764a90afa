"""What users wrap their networks in."""

from chainer_mmix.links.classifier import ManifoldMixupClassifier

__all__ = ["ManifoldMixupClassifier"]
