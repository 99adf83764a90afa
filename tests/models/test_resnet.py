import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix.mixing.draw import MixupDraw, using_draw
from chainer_mmix.models import ResNet18, ResNet50
from chainer_mmix.models.resnet import BasicUnit

NAMES = ("stem", "res2", "res3", "res4", "res5")


@pytest.fixture(scope="module", params=[ResNet50, ResNet18], ids=lambda c: c.__name__)
def net(request):
    np.random.seed(0)
    net = request.param(n_class=10)
    net(np.zeros((2, 3, 32, 32), np.float32))
    return net


@pytest.mark.parametrize("downsample_fb", [False, True])
def test_weights_and_output_are_those_of_chainers_resnet50(downsample_fb):
    net = ResNet50(n_class=1000, downsample_fb=downsample_fb)
    net(np.zeros((2, 3, 32, 32), np.float32))
    theirs = L.ResNet50Layers(pretrained_model=None, downsample_fb=downsample_fb)
    for name in ("conv1", "bn1", "res2", "res3", "res4", "res5", "fc6"):
        theirs[name].copyparams(net[name])
    x = np.random.RandomState(0).rand(2, 3, 64, 64).astype(np.float32)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        expected = theirs(x, layers=["fc6"])["fc6"].array
        np.testing.assert_allclose(net(x).array, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("in_channels", "stride"), [(4, 1), (3, 1), (4, 2)])
def test_basic_unit(in_channels, stride):
    rng = np.random.RandomState(0)
    unit = BasicUnit(in_channels, 4, stride)
    for bn in (link for link in unit.children() if "bn" in link.name):
        bn.gamma.array[...] = rng.rand(4)
        bn.beta.array[...] = rng.randn(4)
        bn.avg_mean[...] = rng.randn(4)
        bn.avg_var[...] = rng.rand(4) + 0.5

    def conv_bn(i, h, pad, stride=1):
        conv, bn = unit[f"conv{i}"], unit[f"bn{i}"]
        h = F.convolution_2d(h, conv.W.array.astype(float), None, stride, pad).array
        shape = (1, -1, 1, 1)
        h = (h - bn.avg_mean.reshape(shape)) / np.sqrt(bn.avg_var + 2e-5).reshape(shape)
        return bn.gamma.array.reshape(shape) * h + bn.beta.array.reshape(shape)

    x = rng.randn(2, in_channels, 6, 6)
    h = conv_bn(2, np.maximum(conv_bn(1, x, 1, stride), 0), 1)
    shortcut = x if (in_channels, stride) == (4, 1) else conv_bn(3, x, 0, stride)
    with chainer.using_config("train", False):
        y = unit(x.astype(np.float32)).array
    np.testing.assert_allclose(y, np.maximum(h + shortcut, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("point", range(6))
def test_points_lie_where_the_documentation_says(net, point):
    rng = np.random.RandomState(0)
    x = rng.rand(3, 3, 32, 32).astype(np.float32)
    t = np.array([0, 1, 2], np.int32)
    perm = np.array([1, 2, 0])
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        h = x
        for name in NAMES[:point]:
            h = getattr(net, name)(h)
        h = 0.25 * h + 0.75 * h[perm]
        for name in NAMES[point:]:
            h = getattr(net, name)(h)
        expected = net.fc6(F.average(h, axis=(2, 3))).array
        with using_draw(MixupDraw(point, 0.25, perm)) as draw:
            y, a, b = net(x, t, mixup_hidden=True, lam=0.25, layer_mix=point)
    assert draw.times_mixed == 1
    np.testing.assert_allclose(y.array, expected, rtol=1e-3, atol=1e-4)
    assert (a.tolist(), b.tolist()) == ([0, 1, 2], [1, 2, 0])


@pytest.mark.parametrize(
    ("stem", "size", "sizes"),
    [
        ("imagenet", 32, (8, 8, 4, 2, 1)),
        ("imagenet", 8, (2, 2, 1, 1, 1)),
        ("cifar", 32, (32, 32, 16, 8, 4)),
        ("cifar", 8, (8, 8, 4, 2, 1)),
    ],
)
def test_shapes(stem, size, sizes):
    net = ResNet18(n_class=10, stem=stem)
    h = np.zeros((1, 1, size, size), np.float32)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        for i, channels in enumerate((64, 64, 128, 256, 512)):
            h = getattr(net, NAMES[i])(h)
            assert h.shape == (1, channels, sizes[i], sizes[i])
        assert net.head(h).shape == (1, 10)


def test_unknown_stem_is_named():
    with pytest.raises(ValueError, match="'cifar' or 'torchvision', not 'mnist'"):
        ResNet18(10, stem="mnist")


@pytest.mark.parametrize("shape", [(2, 2), (2, 8), (8, 1)])
def test_the_smallest_images_of_the_stems(shape):
    x = np.zeros((2, 1, *shape), np.float32)
    size = "x".join(map(str, shape))
    with pytest.raises(ValueError, match=f"{size} pixels are too small.*stem 'cifar'"):
        ResNet18(4)(x)
    for stem in ("cifar", "torchvision"):
        assert ResNet18(4, stem=stem)(x).shape == (2, 4)
    assert ResNet18(4)(np.zeros((2, 1, 3, 3), np.float32)).shape == (2, 4)
