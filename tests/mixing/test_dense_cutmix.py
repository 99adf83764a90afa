"""CutMix of targets that are of each place, against loops over places."""

import itertools

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix import (
    ManifoldMixupClassifier,
    MixupLayers,
    MixupPolicy,
    mixup_data,
)
from chainer_mmix.mixing import MixupDraw, using_draw


def is_in_box(place, size, lam, center):
    """Tells whether an element of a map comes from the partner."""
    share = (1 - lam) ** (1 / len(size))
    return all(
        -int(n * share / 2) <= at - int(n * c) < int(n * share / 2)
        for at, n, c in zip(place, size, center, strict=False)
    )


def cut_by_loops(t, size, lam, center, perm):
    """Cuts targets whose last axes lie over those of a map of some size."""
    t, result = np.asarray(t), np.array(t)
    places = t.shape[t.ndim - len(size) :]
    for n in range(len(t)):
        lam_n = np.broadcast_to(lam, len(t))[n]
        center_n = np.broadcast_to(center, (len(t), 3))[n]
        for place in itertools.product(*map(range, places)):
            element = [
                int((i + 0.5) * m / k)
                for i, m, k in zip(place, size, places, strict=True)
            ]
            if is_in_box(element, size, lam_n, center_n):
                result[(n, ..., *place)] = t[(perm[n], ..., *place)]
    return result


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
@pytest.mark.parametrize("n", [1, 4, 5])
@pytest.mark.parametrize(
    ("size", "places"),
    [
        ((8, 6), (8, 6)),
        ((8, 6), (32, 24)),
        ((8, 8), (4, 4)),
        ((7, 4), (28, 16)),
        ((5, 5), (19, 20)),  # of 19 rows, a stride of 4 leaves 5
        ((4, 5, 6), (8, 10, 12)),
    ],
)
def test_targets_are_cut_by_the_scaled_box(size, places, n, per):
    rng = np.random.RandomState(0)
    x = rng.randn(n, 2, *size).astype("f")
    labels = rng.randint(-1, 5, (n, *places)).astype("i")
    shares = rng.rand(n, 3, *places).astype("f")
    policy = MixupPolicy(0, cutmix_alpha=1, per=per, seed=1)
    for target in (labels, shares):
        draw = policy.draw(n)
        with using_draw(draw):
            mixed, a, b = mixup_data(x, target, draw.lam)
        assert a is b
        rest = draw.center, draw.perm
        np.testing.assert_array_equal(a, cut_by_loops(target, size, draw.lam, *rest))
        np.testing.assert_array_equal(mixed, cut_by_loops(x, size, draw.lam, *rest))
        assert a.dtype == target.dtype


class Net(chainer.Chain):
    """Labels each place, at half the size of the image."""

    mixup_layers = (0, 1)

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(1, 4, 3, 2, 1)
            self.conv2 = L.Convolution2D(4, 5, 1)

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        if mixup_hidden and layer_mix == 0:
            x, a, b = mixup_data(x, target, lam)
        h = self.conv1(x)
        if mixup_hidden and layer_mix == 1:
            h, a, b = mixup_data(h, target, lam)
        y = F.resize_images(self.conv2(F.relu(h)), (12, 12))
        return (y, a, b) if mixup_hidden else y


class Forgetful(Net):
    def forward(self, x, target=None, **more):
        result = super().forward(x, target, **more)
        return (result[0], target, result[2]) if more else result


@pytest.mark.parametrize("label_smoothing", [0, 0.1])
@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("point", [0, 1])
def test_loss_and_accuracy_are_those_of_the_cut_labels(point, per, label_smoothing):
    rng = np.random.RandomState(0)
    x, t = rng.randn(5, 1, 12, 12).astype("f"), rng.randint(-1, 5, (5, 12, 12))
    t = t.astype("i")
    net = Net()
    policy = MixupPolicy(0, cutmix_alpha=1, per=per, layer_mix=point, seed=2)
    model = ManifoldMixupClassifier(net, policy=policy, label_smoothing=label_smoothing)
    drawn = MixupPolicy(0, cutmix_alpha=1, per=per, layer_mix=point, seed=2).draw(5)
    model(x, t)
    size = (12, 12) if point == 0 else (6, 6)
    rest = size, drawn.lam, drawn.center, drawn.perm
    h = cut_by_loops(x, *rest) if point == 0 else x
    h = net.conv1(h).array
    h = cut_by_loops(h, *rest) if point == 1 else h
    y = F.resize_images(net.conv2(np.maximum(h, 0)), (12, 12)).array.astype("d")
    t = cut_by_loops(t, *rest)
    log_p = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
    valid = t != -1
    one_hot = np.moveaxis(np.eye(5)[t], -1, 1)
    one_hot = (1 - label_smoothing) * one_hot + label_smoothing / 5
    loss = -((one_hot * log_p).sum(axis=1) * valid).sum() / valid.sum()
    assert float(model.loss.array) == pytest.approx(loss, rel=1e-5)
    accuracy = ((y.argmax(axis=1) == t) & valid).sum() / valid.sum()
    assert float(model.accuracy.array) == pytest.approx(accuracy, rel=1e-6)
    assert np.ndim(model.draw.lam) == (per == "sample")


class Skipping(chainer.Chain):
    """It leaves out its block in every second step."""

    def __init__(self):
        super().__init__(a=L.Convolution2D(1, 5, 1), b=L.Convolution2D(5, 5, 1))
        self.called = itertools.cycle([True, False])

    def forward(self, x):
        h = self.a(x)
        if not chainer.config.train or next(self.called):
            h = self.b(h)
        return h


def test_a_step_that_leaves_the_layer_out_is_not_cut():
    rng = np.random.RandomState(0)
    x, t = rng.randn(4, 1, 6, 6).astype("f"), rng.randint(0, 5, (4, 6, 6)).astype("i")
    net = Skipping()
    policy = MixupPolicy(0, cutmix_alpha=1, seed=0)
    model = ManifoldMixupClassifier(MixupLayers(net, ["b"]), policy=policy)
    model(x, t)
    assert model.draw.lam < 1
    loss = model(x, t)
    expected = F.softmax_cross_entropy(net.a(x), t)
    np.testing.assert_allclose(loss.array, expected.array, rtol=1e-6)
    assert model.draw.lam == 1


def test_targets_that_are_not_passed_on_are_an_error():
    x, t = np.zeros((4, 1, 12, 12), "f"), np.zeros((4, 12, 12), "i")
    policy = MixupPolicy(0, cutmix_alpha=1, layer_mix=0, seed=0)
    model = ManifoldMixupClassifier(Forgetful(), policy=policy)
    with pytest.raises(RuntimeError, match="returned the targets as it was given them"):
        model(x, t)


@pytest.mark.parametrize(
    ("x", "target"),
    [
        ((2, 3, 8, 8), (2, 3, 10)),  # three tasks of ten classes
        ((2, 3, 8, 8), (2, 16, 8)),
        ((2, 3, 8, 8), (2, 4, 2, 8, 8)),
        ((2, 3, 8), (2, 3, 8)),
        ((2, 3, 4, 8, 8), (2, 8, 8)),
    ],
)
def test_targets_of_other_proportions_are_refused(x, target):
    draw = MixupDraw(0, 0.5, np.array([1, 0]), np.zeros(3))
    with using_draw(draw), pytest.raises(ValueError, match="are neither of each"):
        mixup_data(np.zeros(x, "f"), np.zeros(target, "f"), 0.5)
