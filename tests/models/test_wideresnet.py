import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.serializers import DictionarySerializer

from chainer_mmix.mixing.draw import MixupDraw, using_draw
from chainer_mmix.models import WideResNet


def reference(p, x, n_units):
    """szagoruyko's pytorch/resnet.py, from float64 weights by name."""

    def conv(name, h, stride=1):
        w = p[f"{name}/W"]
        return F.convolution_2d(h, w, None, stride, w.shape[-1] // 2).array

    def bn_relu(name, h):
        keys = ("gamma", "beta", "avg_mean", "avg_var")
        g, b, m, v = (p[f"{name}/{k}"].reshape(1, -1, 1, 1) for k in keys)
        return np.maximum(g * (h - m) / np.sqrt(v + 2e-5) + b, 0)

    def block(x, base, stride):
        o1 = bn_relu(f"{base}/bn1", x)
        y = conv(f"{base}/conv1", o1, stride)
        z = conv(f"{base}/conv2", bn_relu(f"{base}/bn2", y))
        if f"{base}/shortcut/W" in p:
            return z + conv(f"{base}/shortcut", o1, stride)
        return z + x

    h = conv("conv1", x)
    for i in (1, 2, 3):
        for j in range(n_units):
            name = f"b{j}" if j else "a"
            h = block(h, f"block{i}/{name}", 2 if i > 1 and j == 0 else 1)
    h = bn_relu("bn", h).mean((2, 3))
    return h @ p["fc/W"].T + p["fc/b"]


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2)])
def test_it_is_the_published_network(depth, width):
    rng = np.random.RandomState(0)
    x = rng.rand(2, 3, 12, 12)
    net = WideResNet(5, depth, width)
    net(x.astype(np.float32))
    for link in net.links():
        if isinstance(link, chainer.links.BatchNormalization):
            shape = link.gamma.shape
            link.gamma.array[...] = rng.rand(*shape) + 0.5
            link.beta.array[...] = rng.randn(*shape)
            link.avg_mean[...] = rng.randn(*shape)
            link.avg_var[...] = rng.rand(*shape) + 0.5
    serializer = DictionarySerializer()
    serializer.save(net)
    p = {name: np.asarray(v, np.float64) for name, v in serializer.target.items()}
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        y = net(x.astype(np.float32)).array
    expected = reference(p, x, (depth - 4) // 6)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("point", range(4))
def test_points_lie_where_the_documentation_says(point):
    net = WideResNet(4, depth=10, width=2)
    x = np.random.RandomState(1).rand(3, 1, 32, 32).astype(np.float32)
    perm = np.array([2, 0, 1])
    steps = [lambda h: net.block1(net.conv1(h)), net.block2, net.block3]
    shapes = [(3, 1, 32, 32), (3, 32, 32, 32), (3, 64, 16, 16), (3, 128, 8, 8)]
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        h = x
        for step in steps[:point]:
            h = step(h)
        assert h.shape == shapes[point]
        h = 0.3 * h + 0.7 * h[perm]
        for step in steps[point:]:
            h = step(h)
        expected = net.fc(F.average(F.relu(net.bn(h)), axis=(2, 3))).array
        with using_draw(MixupDraw(point, 0.3, perm)) as draw:
            y, _, b = net(x, perm, mixup_hidden=True, lam=0.3, layer_mix=point)
    assert draw.times_mixed == 1
    np.testing.assert_allclose(y.array, expected, rtol=1e-3, atol=1e-4)
    assert b.tolist() == perm[perm].tolist()


def test_dropout_drops_in_training_only():
    np.random.seed(0)
    net = WideResNet(4, depth=10, width=1, dropout=0.4)
    x = np.random.rand(2, 3, 8, 8).astype(np.float32)
    net(x)
    seen = []
    net.block2.a.conv2.add_hook(_Inputs(seen))
    net(x)
    net.block2.a.bn2.beta.array[...] = 5  # else, ReLU makes zeros too
    net(x)
    with chainer.using_config("train", False):
        net(x)
    _, training, testing = seen
    assert (training == 0).mean() == pytest.approx(0.4, abs=0.1)
    assert (testing == 0).mean() < 0.01


class _Inputs(chainer.LinkHook):
    def __init__(self, seen):
        self.seen = seen

    def forward_preprocess(self, args):
        self.seen.append(args.args[0].array)


@pytest.mark.parametrize(
    ("depth", "nearest"), [(30, "28 or 34"), (27, "22 or 28"), (8, "10"), (-3, "10")]
)
def test_impossible_depth_is_named_with_the_nearest(depth, nearest):
    match = f"not {depth}: the nearest is {nearest}$"
    with pytest.raises(ValueError, match=match):
        WideResNet(10, depth=depth)


def test_impossible_width_is_named():
    with pytest.raises(ValueError, match="width must be 1 or more, not 0"):
        WideResNet(10, width=0)
