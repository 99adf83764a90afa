import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.serializers import DictionarySerializer

from chainer_mmix.mixing.draw import MixupDraw, using_draw
from chainer_mmix.models import PreActResNet, PreActResNet18


class Bottlenecks(PreActResNet):
    n_units = (1, 2, 1, 1)
    bottleneck = True


def reference(p, x, n_units, bottleneck):
    """The published network, from float64 weights by name; logits and stages."""

    def conv(name, h, stride=1):
        w = p[f"{name}/W"]
        return F.convolution_2d(h, w, None, stride, w.shape[-1] // 2).array

    def bn_relu(name, h):
        keys = ("gamma", "beta", "avg_mean", "avg_var")
        g, b, m, v = (p[f"{name}/{k}"].reshape(1, -1, 1, 1) for k in keys)
        return np.maximum(g * (h - m) / np.sqrt(v + 2e-5) + b, 0)

    def unit(name, h, stride):
        out = bn_relu(f"{name}/bn1", h)
        if f"{name}/shortcut/W" in p:
            h = conv(f"{name}/shortcut", out, stride)
        if bottleneck:
            out = conv(f"{name}/conv1", out)
            out = conv(f"{name}/conv2", bn_relu(f"{name}/bn2", out), stride)
            out = conv(f"{name}/conv3", bn_relu(f"{name}/bn3", out))
        else:
            out = conv(f"{name}/conv1", out, stride)
            out = conv(f"{name}/conv2", bn_relu(f"{name}/bn2", out))
        return out + h

    stages = []
    h = conv("conv1", x)
    for i, n in enumerate(n_units, 1):
        h = unit(f"block{i}/a", h, 1 if i == 1 else 2)
        for j in range(1, n):
            h = unit(f"block{i}/b{j}", h, 1)
        stages.append(h)
    return h.mean((2, 3)) @ p["fc/W"].T + p["fc/b"], stages


def randomize(net, rng):
    """Sets what batch normalisation starts trivial, and returns all as float64."""
    for link in net.links():
        if isinstance(link, chainer.links.BatchNormalization):
            shape = link.gamma.shape
            link.gamma.array[...] = rng.rand(*shape) + 0.5
            link.beta.array[...] = rng.randn(*shape)
            link.avg_mean[...] = rng.randn(*shape)
            link.avg_var[...] = rng.rand(*shape) + 0.5
    serializer = DictionarySerializer()
    serializer.save(net)
    return {name: np.asarray(v, np.float64) for name, v in serializer.target.items()}


@pytest.fixture(scope="module")
def net():
    np.random.seed(0)
    net = PreActResNet18(n_class=7)
    net(np.zeros((1, 3, 8, 8), np.float32))
    return net


def test_it_is_the_published_network(net):
    rng = np.random.RandomState(0)
    x = rng.rand(2, 3, 32, 32)
    expected, expected_stages = reference(
        randomize(net, rng), x, net.n_units, bottleneck=False
    )
    shapes = [(2, 64, 32, 32), (2, 128, 16, 16), (2, 256, 8, 8), (2, 512, 4, 4)]
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        y = net(x.astype(np.float32)).array
        h = net.conv1(x.astype(np.float32))
        for i, (stage, shape) in enumerate(
            zip(expected_stages, shapes, strict=True), 1
        ):
            h = net[f"block{i}"](h)
            assert h.shape == shape
            np.testing.assert_allclose(h.array, stage, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)


def test_bottlenecks_are_the_published_ones():
    rng = np.random.RandomState(0)
    net = Bottlenecks(n_class=3)
    x = rng.rand(2, 1, 8, 8)
    net(x.astype(np.float32))
    expected, _ = reference(randomize(net, rng), x, net.n_units, bottleneck=True)
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        y = net(x.astype(np.float32)).array
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("point", range(5))
def test_points_lie_where_the_documentation_says(net, point):
    x = np.random.RandomState(1).rand(3, 3, 8, 8).astype(np.float32)
    perm = np.array([2, 0, 1])
    steps = [lambda h: net.block1(net.conv1(h)), net.block2, net.block3, net.block4]
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        h = x
        for step in steps[:point]:
            h = step(h)
        h = 0.3 * h + 0.7 * h[perm]
        for step in steps[point:]:
            h = step(h)
        expected = net.fc(F.average(h, axis=(2, 3))).array
        with using_draw(MixupDraw(point, 0.3, perm)) as draw:
            y, _, b = net(x, perm, mixup_hidden=True, lam=0.3, layer_mix=point)
    assert draw.times_mixed == 1
    np.testing.assert_allclose(y.array, expected, rtol=1e-3, atol=1e-4)
    assert b.tolist() == perm[perm].tolist()
