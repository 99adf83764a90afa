"""Uses of a trained network: predictions, evaluation, files for other programs."""

from chainer_mmix.inference.predictor import Predictor, load_predictor

__all__ = ["Predictor", "load_predictor"]
