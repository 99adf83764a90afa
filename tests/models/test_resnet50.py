import chainer
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix.mixing.policy import MixupDraw, using_draw
from models import ResNet50


@pytest.fixture(scope="module")
def net():
    np.random.seed(0)
    net = ResNet50(n_class=1000)
    net(np.zeros((2, 3, 32, 32), np.float32))
    return net


def test_parameter_count_is_the_published_one(net):
    # 25,557,032 without the bias of conv1, which Caffe's and Chainer's ResNet-50 have.
    assert net.count_params() == 25_557_032 + 64


def test_weights_and_output_are_those_of_chainers_resnet50(net):
    theirs = L.ResNet50Layers(pretrained_model=None)
    for name in ("conv1", "bn1", "res2", "res3", "res4", "res5", "fc6"):
        theirs[name].copyparams(net[name])
    x = np.random.RandomState(0).rand(2, 3, 64, 64).astype(np.float32)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        expected = theirs(x, layers=["fc6"])["fc6"].array
        np.testing.assert_allclose(net(x).array, expected, rtol=1e-3, atol=1e-4)


def hidden_state(net, x, point):
    """The hidden state at a mixing point, by the names of the children."""
    h = x
    if point > 0:
        h = net.stem(h)
    for name in ("res2", "res3", "res4", "res5")[: max(0, point - 1)]:
        h = net[name](h)
    return h


@pytest.mark.parametrize("point", range(6))
def test_points_lie_where_the_documentation_says(net, point):
    rng = np.random.RandomState(0)
    x = rng.rand(3, 3, 32, 32).astype(np.float32)
    t = np.array([0, 1, 2], np.int32)
    perm = np.array([1, 2, 0])
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        h = hidden_state(net, x, point)
        h = 0.25 * h + 0.75 * h[perm]
        for name in ("stem", "res2", "res3", "res4", "res5")[point:]:
            h = getattr(net, name)(h)
        expected = net.head(h).array
        with using_draw(MixupDraw(point, 0.25, perm)) as draw:
            y, a, b = net(x, t, mixup_hidden=True, lam=0.25, layer_mix=point)
    assert draw.times_mixed == 1
    np.testing.assert_allclose(y.array, expected, rtol=1e-3, atol=1e-4)
    assert (a.tolist(), b.tolist()) == ([0, 1, 2], [1, 2, 0])


def test_default_points_are_the_papers():
    # The input and the outputs of the first two residual stages.
    assert ResNet50.default_layer_mix == (0, 2, 3)
