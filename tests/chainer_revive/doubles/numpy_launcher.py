"""The arithmetic of the kernels, in NumPy."""

import numpy as np


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

    def one_block(self, source, name, block, *args):
        self.calls.append(name)
        x, a, b, each, lam, _, _, ignored, *rest = args
        first = each if isinstance(each, np.ndarray) else np.full(len(x), lam)
        pairs = (a, first), (b, 1 - first)
        if name.startswith("mmix_accuracy"):
            (result,) = rest
            hits = [w * (t != ignored) * (x.argmax(1) == t) for t, w in pairs]
            counts = [max((t != ignored).sum(), 1) for t, _ in pairs]
            result[...] = sum(h.sum() / n for h, n in zip(hits, counts, strict=True))
            return
        normalize, smoothing, gradient, loss = rest
        p = np.exp(x - x.max(1, keepdims=True), dtype=np.float64)
        p /= p.sum(1, keepdims=True)
        n_class = x.shape[1]
        gradient[...] = total = 0
        for t, weight in pairs:
            valid = t != ignored
            target = np.eye(n_class)[np.where(valid, t, 0)] * (1 - smoothing)
            target += smoothing / n_class
            share = weight * valid / (max(valid.sum(), 1) if normalize else len(t))
            total -= (share[:, None] * target * np.log(p)).sum()
            gradient += share[:, None] * (p - target)
        loss[...] = total

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
