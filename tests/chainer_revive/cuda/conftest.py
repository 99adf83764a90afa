"""The arithmetic of the kernels, in NumPy."""

import numpy as np
import pytest

from chainer_revive.cuda import current


class NumpyLauncher:
    """Does on NumPy's arrays what the kernels do, and counts its calls."""

    array_type = np.ndarray

    def __init__(self):
        self.calls = []

    def update(self, rule, tensors, clip):
        self.calls.append("update")
        for t in tensors:
            g = gradient(t) if clip is None else gradient(t) * clip
            g = (g + np.float32(t.after) * t.param) / np.float32(t.loss_scale)
            getattr(self, rule)(t.param, g, *t.states, *map(np.float32, t.rates))
            if t.half is not None:
                t.half[...] = t.param

    def clip(self, tensors, threshold):
        self.calls.append("clip")
        squares = sum((gradient(t).astype("d") ** 2).sum() for t in tensors)
        return np.float32(min(threshold / np.sqrt(squares), 1))

    def finite(self, arrays):
        self.calls.append("finite")
        return np.array([np.isfinite(a).all() for a in arrays])

    def MomentumSGDRule(self, param, g, v, lr, momentum):
        v[...] = momentum * v - lr * g
        param += v

    def NesterovAGRule(self, param, g, v, lr, momentum):
        v[...] = v * momentum - lr * g
        param += momentum * momentum * v - (1 + momentum) * lr * g

    def SGDRule(self, param, g, v, lr, momentum, weight_decay, nesterov):
        d = g + weight_decay * param
        v[...] = momentum * v + d
        param -= lr * (d + momentum * v if nesterov else v)

    def AdamRule(self, param, g, m, v, alpha_t, rest1, rest2, eps, eta, decay):
        m += rest1 * (g - m)
        v += rest2 * (g * g - v)
        param -= eta * (alpha_t * m / (np.sqrt(v) + eps) + decay * param)


def gradient(t):
    return t.grad.astype("f") + np.float32(t.before) * t.param


@pytest.fixture
def numpy_launcher():
    return NumpyLauncher()


@pytest.fixture
def launcher(numpy_launcher):
    """Optimizers work through a NumpyLauncher, which is returned."""
    current.use(numpy_launcher)
    yield numpy_launcher
    current.use(None)
