"""One training step against the published algorithm, in float64 NumPy.

The networks, their gradients and the losses below are written out by hand, after
arXiv 1806.05236 and ``mixup_process`` and ``bce_loss(softmax(output), target)`` of the
paper's published code.
"""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from scipy.signal import convolve2d, correlate, correlate2d

from chainer_mmix import ManifoldMixupClassifier, MixupPolicy, mixup_data
from chainer_mmix.links.sequential import MixupSequential
from chainer_mmix.mixing import MixupDraw, softmax_binary_cross_entropy

N, C, RATE = 6, 4, 0.1


@pytest.fixture(autouse=True)
def double_precision():
    with chainer.using_config("dtype", np.float64):
        yield


class Affine:
    def __init__(self, link):
        self.link = link
        self.W, self.b = link.W.array.copy(), link.b.array.copy()

    def forward(self, x):
        self.x = x.reshape(len(x), -1)
        self.shape = x.shape
        return self.x @ self.W.T + self.b

    def backward(self, gy):
        self.gW, self.gb = gy.T @ self.x, gy.sum(0)
        return (gy @ self.W).reshape(self.shape)


class Convolution(Affine):
    def forward(self, x):
        self.x = x
        maps = [[correlate(image, w, "valid", "direct") for w in self.W] for image in x]
        return np.array(maps)[:, :, 0] + self.b[:, None, None]

    def backward(self, gy):
        self.gb = gy.sum((0, 2, 3))
        self.gW, gx = np.zeros_like(self.W), np.zeros_like(self.x)
        for n, o, i in np.ndindex(len(gy), *self.W.shape[:2]):
            self.gW[o, i] += correlate2d(self.x[n, i], gy[n, o], "valid")
            gx[n, i] += convolve2d(gy[n, o], self.W[o, i])
        return gx


class Tanh:
    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, gy):
        return gy * (1 - self.y**2)


class Relu:
    def forward(self, x):
        self.positive = x > 0
        return x * self.positive

    def backward(self, gy):
        return gy * self.positive


class Mix:
    def __init__(self, lam, perm):
        self.lam, self.perm = lam, perm

    def forward(self, x):
        return mixed(x, self.lam, self.perm)

    def backward(self, gy):
        lam = column(self.lam, gy)
        gx = lam * gy
        np.add.at(gx, self.perm, (1 - lam) * gy)
        return gx


def column(lam, like):
    return np.reshape(lam, (-1,) + (1,) * (like.ndim - 1))


def mixed(x, lam, perm):
    lam = column(lam, x)
    return lam * x + (1 - lam) * x[perm]


# Each loss takes logits and unmixed targets (probabilities), and returns its value and
# its gradient with respect to the logits.


def softmax(y):
    return np.exp(y) / np.exp(y).sum(1, keepdims=True)


def pair_cross_entropy(y, t, lam, perm):
    """Two losses, weighted: ``mixup_criterion`` of the mixup authors' code."""
    p = softmax(y)
    loss, gy = 0, 0
    for target, weight in ((t, column(lam, y)), (t[perm], column(1 - lam, y))):
        loss -= (weight * target * np.log(p)).sum() / N
        gy = gy + weight * (p - target) / N
    return loss, gy


def soft_cross_entropy(y, t, lam, perm):
    """One loss against the mixed target, as in the paper."""
    p, t = softmax(y), mixed(t, lam, perm)
    return -(t * np.log(p)).sum(1).mean(), (p - t) / N


def binary_cross_entropy(y, t, lam, perm):
    """The mean over batch and classes, against the mixed target: the paper's code."""
    p, t = softmax(y), mixed(t, lam, perm)
    loss = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    gp = ((1 - t) / (1 - p) - t / p) / p.size
    return loss, p * (gp - (p * gp).sum(1, keepdims=True))


def mlp():
    """Two hidden layers, as a list."""
    net = MixupSequential(
        (L.Linear(5, 7), True),
        (F.tanh, True),
        (L.Linear(7, 6), True),
        (F.relu, False),
        (L.Linear(6, C), True),
    )
    layers = [Affine(net[0]), Tanh(), Affine(net[2]), Relu(), Affine(net[4])]
    return net, layers, (N, 5)


class ConvNet(chainer.Chain):
    """Written by hand; its points are the layers of the list below."""

    mixup_layers = (0, 1, 2, 4)

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(2, 3, 3)
            self.conv2 = L.Convolution2D(3, 2, 3)
            self.fc = L.Linear(2 * 2 * 1, C)

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        def mix_at(point, h):
            nonlocal targets
            if mixup_hidden and layer_mix == point:
                h, *targets = mixup_data(h, target, lam)
            return h

        targets = None
        h = mix_at(1, self.conv1(mix_at(0, x)))
        h = F.relu(self.conv2(mix_at(2, F.tanh(h))))
        y = self.fc(mix_at(4, h))
        return (y, *targets) if mixup_hidden else y


def conv_net():
    net = ConvNet()
    conv1, conv2, fc = Convolution(net.conv1), Convolution(net.conv2), Affine(net.fc)
    return net, [conv1, Tanh(), conv2, Relu(), fc], (N, 2, 6, 5)


class FixedPolicy(MixupPolicy):
    def __init__(self, lam, layer_mix):
        super().__init__(layer_mix=layer_mix)
        self.lam = lam

    def draw(self, batch_size, points=()):
        (point,) = points
        return MixupDraw(point, self.lam, PERM)


PERM = np.array([2, 0, 1, 3, 5, 4])
LAM_PER_SAMPLE = np.float32([0.1, 0.9, 0.5, 0.3, 1.0, 0.0])
LABELS = np.random.RandomState(1).randint(0, C, N).astype(np.int32)
ONE_HOT = np.eye(C)[LABELS]
SOFT = np.random.RandomState(2).dirichlet(np.ones(C), N)


@pytest.mark.parametrize("lam", [0.3, LAM_PER_SAMPLE], ids=["batch", "sample"])
@pytest.mark.parametrize(
    ("lossfun", "target", "published"),
    [
        (F.softmax_cross_entropy, LABELS, pair_cross_entropy),
        (F.softmax_cross_entropy, LABELS, soft_cross_entropy),
        (F.softmax_cross_entropy, ONE_HOT, soft_cross_entropy),
        (F.softmax_cross_entropy, SOFT, pair_cross_entropy),
        (F.softmax_cross_entropy, SOFT, soft_cross_entropy),
        (softmax_binary_cross_entropy, LABELS, binary_cross_entropy),
        (softmax_binary_cross_entropy, ONE_HOT, binary_cross_entropy),
        (softmax_binary_cross_entropy, SOFT, binary_cross_entropy),
    ],
    ids=[
        *("labels-pair", "labels-soft", "onehot-soft", "soft-pair", "soft-soft"),
        *("labels-bce", "onehot-bce", "soft-bce"),
    ],
)
@pytest.mark.parametrize("point", [0, 1, 2, 4])
@pytest.mark.parametrize("network", [mlp, conv_net])
def test_a_step_is_the_published_one(network, point, lossfun, target, published, lam):
    np.random.seed(0)
    net, layers, shape = network()
    x = np.random.randn(*shape)
    policy = FixedPolicy(lam, layer_mix=point)
    model = ManifoldMixupClassifier(net, lossfun=lossfun, policy=policy)
    optimizer = chainer.optimizers.SGD(RATE).setup(model)
    optimizer.update(model, x, target)

    lam = np.float64(lam)
    steps = [*layers[:point], Mix(lam, PERM), *layers[point:]]
    h = x
    for step in steps:
        h = step.forward(h)
    t = ONE_HOT if target is LABELS else target
    loss, gradient = published(h, t, lam, PERM)
    for step in reversed(steps):
        gradient = step.backward(gradient)

    close = {"rtol": 1e-10, "atol": 1e-13}
    np.testing.assert_allclose(model.y.array, h, **close)
    np.testing.assert_allclose(model.loss.array, loss, **close)
    for layer in layers:
        if isinstance(layer, Affine):
            link = layer.link
            np.testing.assert_allclose(link.W.grad, layer.gW, **close)
            np.testing.assert_allclose(link.b.grad, layer.gb, **close)
            np.testing.assert_allclose(link.W.array, layer.W - RATE * layer.gW, **close)
            np.testing.assert_allclose(link.b.array, layer.b - RATE * layer.gb, **close)
