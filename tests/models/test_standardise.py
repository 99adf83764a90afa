import chainer
import numpy as np
import pytest
from chainer import gradient_check
from chainer.serializers import save_npz

from chainer_mmix import ManifoldMixupClassifier
from chainer_mmix.models import CNN
from chainer_mmix.training import SnapshotError, load_weights

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture
def x():
    return np.random.default_rng(0).random((4, 3, 8, 8), np.float32)


def make(x, *constants):
    np.random.seed(0)
    net = CNN(3, width=4)
    if constants:
        net.standardise(*constants)
    net(x)
    return net


def by_hand(x, kind):
    x = np.float64(x)
    if kind == "channel":
        return (x - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    std = x.std(axis=(1, 2, 3), keepdims=True)
    return (x - mean) / np.maximum(std, 192**-0.5)


@pytest.mark.parametrize(
    "kind, constants", [("channel", (MEAN, STD)), ("image", (None, None))]
)
def test_it_is_as_if_the_data_were_standardised(x, kind, constants):
    x[0] = 0.25  # of no deviation
    expected = np.float32(by_hand(x, kind))
    plain, net = make(x), make(x, *constants)
    np.testing.assert_allclose(net(x).array, plain(expected).array, 1e-4, 1e-5)
    # Mixed, too, at the input and behind it.
    t, lam = np.arange(4, dtype=np.int32) % 3, 0.3
    for layer in (0, 1):
        outputs = []
        for link, images in ((net, x), (plain, expected)):
            np.random.seed(1)
            outputs.append(link(images, t, True, lam, layer)[0].array)
        np.testing.assert_allclose(*outputs, 1e-4, 1e-5)


@pytest.mark.parametrize("constants", [(MEAN, STD), (None, None)])
def test_the_gradient_goes_through_it(x, constants):
    with chainer.using_config("dtype", np.float64):
        x = np.float64(x)
        net = make(x, *constants)
        gy = np.random.default_rng(1).normal(size=(4, 3))
        gradient_check.check_backward(net, x, gy, eps=1e-5, rtol=1e-4, atol=1e-6)


def test_weights_are_not_taken_for_those_of_a_network_without_it(x, tmp_path):
    path = tmp_path / "weights.npz"
    saved = ManifoldMixupClassifier(make(x, MEAN, STD))
    save_npz(path, saved)
    same = make(x, (0.0,) * 3, (1.0,) * 3)
    load_weights(same, path)
    np.testing.assert_array_equal(same(x).array, saved.predictor(x).array)
    for other in (make(x), make(x, None, None)):
        with pytest.raises(SnapshotError, match="do not fit"):
            load_weights(other, path)


def test_half_precision_stays_half(x):
    with chainer.using_config("dtype", np.dtype(np.float16)):
        half = np.float16(x)
        for constants in ((MEAN, STD), (None, None)):
            y = make(half, *constants)(half)
            assert y.dtype == np.float16 and np.isfinite(y.array).all()


@pytest.mark.parametrize(
    "constants",
    [
        ([0.5], None),
        (None, [0.2]),
        ([0.5, 0.4], [0.2]),
        ([], []),
        ([0.5], [0]),
        ([0.5], [-0.2]),
        ([np.nan], [0.2]),
    ],
)
def test_constants_that_are_none(constants):
    with pytest.raises(ValueError, match="mean and std must be finite numbers, one a"):
        CNN(3).standardise(*constants)


def test_grey_images_are_not_broadcast_to_three_channels(x):
    net = CNN(3)
    net.standardise(MEAN, STD)
    with pytest.raises(
        ValueError, match="standardises 3 channels, but the input has 1"
    ):
        net(x[:, :1])
    net(x)
