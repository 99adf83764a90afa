"""Softmax cross entropy of labels, where there are compiled loops."""

from __future__ import annotations

import numpy as np

from chainer_revive.cpu import steps
from chainer_revive.cpu.cross_entropy import cross_entropy
from chainer_revive.cpu.function_node import WATCHED, unwatched, variable
from chainer_revive.explain import declined


def forward(self, inputs):
    """For ``SoftmaxCrossEntropy``."""
    x, t = inputs
    if self.reduce != "mean" or self.class_weight is not None or not self.cache_score:
        return declined("it is for reduce='mean', without class_weight, cache_score on")
    result = cross_entropy(x, (t,), (1.0,), self.ignore_label, self.normalize)
    if result is NotImplemented:
        return NotImplemented
    loss, self._revive_gradient, self.y, count = result
    self._coeff = 1.0 / count
    self.retain_inputs((0, 1))
    return (loss,)


def backward(self, input_indexes, grad_outputs):
    """For ``SoftmaxCrossEntropy``."""
    own = getattr(self, "_revive_gradient", None)
    if own is None:
        return declined("nor was the loss itself")
    if not unwatched():
        return declined(WATCHED)
    gy = grad_outputs[0].array
    gx = np.empty_like(own)
    steps.do(np.multiply, own, gy, gx)
    return variable(gx), None
