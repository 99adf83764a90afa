import chainer
import numpy as np
import pytest

from chainer_mmix import ManifoldMixupClassifier
from chainer_mmix.mixing.draw import MixupDraw, using_draw
from chainer_mmix.models import CNN


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (1, 28)])
def test_image_sizes(channels, size):
    x = np.zeros((2, channels, size, size), np.float32)
    assert CNN(n_class=7)(x).shape == (2, 7)


@pytest.mark.parametrize("point", [0, 1, 2])
def test_points(point):
    net = CNN(n_class=3, width=4)
    x = np.random.RandomState(0).rand(3, 1, 8, 8).astype(np.float32)
    perm = np.array([2, 0, 1])
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        net(x)
        h = x
        for i, stage in enumerate((lambda h: h, net.block1, net.block2)):
            h = stage(h)
            if i == point:
                h = 0.3 * h + 0.7 * h[perm]
        expected = net.head(h).array
        with using_draw(MixupDraw(point, 0.3, perm)):
            y, _, b = net(x, perm, mixup_hidden=True, lam=0.3, layer_mix=point)
    np.testing.assert_allclose(y.array, expected, rtol=1e-4, atol=1e-5)
    assert b.tolist() == perm[perm].tolist()


def test_unknown_point_is_named():
    x, t = np.zeros((2, 1, 8, 8), np.float32), np.zeros(2, np.int32)
    with pytest.raises(ValueError, match="CNN has no mixing point 3; it has 0, 1, 2"):
        CNN(2)(x, t, mixup_hidden=True, lam=0.5, layer_mix=3)


def test_without_a_classifier_a_default_point_is_drawn():
    np.random.seed(0)
    x, t = np.zeros((2, 1, 8, 8), np.float32), np.arange(2)
    y, a, b = CNN(2, width=2)(x, t, mixup_hidden=True, lam=0.5)
    assert y.shape == (2, 2) and sorted(b.tolist()) == a.tolist()


def test_it_learns():
    np.random.seed(0)
    model = ManifoldMixupClassifier(CNN(n_class=2, width=8), seed=0)
    optimizer = chainer.optimizers.Adam(1e-2).setup(model)
    t = np.arange(16, dtype=np.int32) % 2
    x = (np.random.rand(16, 1, 8, 8) + t[:, None, None, None]).astype(np.float32)
    for _ in range(30):
        optimizer.update(model, x, t)
    with chainer.using_config("train", False):
        model(x, t)
    assert model.accuracy.array == 1
