"""Several labels a sample, against float64 NumPy."""

import functools

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import gradient_check

from chainer_mmix import ManifoldMixupClassifier, MixupLayers
from chainer_mmix.mixing import mixup_criterion, mixup_score

RNG = np.random.RandomState(0)


def labels(n):
    return RNG.randint(-1, 2, (n, 4)).astype("i"), RNG.randint(-1, 2, (n, 4)).astype(
        "i"
    )


def probabilities(n):
    return RNG.rand(n, 4), RNG.rand(n, 4)


def entropy(y, t, epsilon, normalize=True, weight=1.0):
    """The sum over what is not -1, of one target."""
    total, count = 0.0, 0
    for (n, c), target in np.ndenumerate(t):
        if target != -1:
            p = 1 / (1 + np.exp(-y[n, c]))
            smoothed = target + epsilon * (0.5 - target)
            loss = -smoothed * np.log(p) - (1 - smoothed) * np.log(1 - p)
            total += np.broadcast_to(weight, len(y))[n] * loss
            count += 1
    return total / (max(count, 1) if normalize else len(y))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("epsilon", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("make", [labels, probabilities])
def test_the_loss_is_the_weighted_binary_cross_entropy(
    make, n, each, epsilon, normalize
):
    y, (a, b) = RNG.randn(n, 4), make(n)
    lam = RNG.rand(n) if each else 0.3
    criterion = functools.partial(F.sigmoid_cross_entropy, normalize=normalize)
    loss = mixup_criterion(criterion, chainer.Variable(y), a, b, lam, epsilon)
    expected = entropy(y, a, epsilon, normalize, lam)
    expected += entropy(y, b, epsilon, normalize, 1 - lam)
    np.testing.assert_allclose(loss.array, expected, rtol=1e-6)
    plain = mixup_criterion(criterion, chainer.Variable(y), a, a, 1.0, epsilon)
    np.testing.assert_allclose(plain.array, entropy(y, a, epsilon, normalize), 1e-6)


@pytest.mark.parametrize("lam", [0.3, np.array([0.1, 0.5, 0.9])])
@pytest.mark.parametrize("make", [labels, probabilities])
def test_each_value_by_itself(make, lam):
    y, (a, b) = RNG.randn(3, 4), make(3)
    criterion = functools.partial(F.sigmoid_cross_entropy, reduce="no")
    loss = mixup_criterion(criterion, chainer.Variable(y), a, b, lam, 0.2)
    for n, c in np.ndindex(3, 4):
        at = np.index_exp[n : n + 1, c : c + 1]
        first = np.broadcast_to(lam, 3)[n]
        expected = entropy(y[at], a[at], 0.2, False, first)
        expected += entropy(y[at], b[at], 0.2, False, 1 - first)
        np.testing.assert_allclose(loss.array[n, c], expected, rtol=1e-6)


@pytest.mark.parametrize("make", [labels, probabilities])
def test_gradients(make):
    y, (a, b) = RNG.randn(3, 4), make(3)
    y[0, 0] = 0

    def loss(y):
        return mixup_criterion(F.sigmoid_cross_entropy, y, a, b, 0.3, 0.2)

    gradient_check.check_backward(loss, y, np.array(1.0), dtype=np.float64, atol=1e-4)
    gradient_check.check_double_backward(
        loss, y, np.array(1.0), RNG.randn(3, 4), dtype=np.float64, atol=1e-4
    )


def test_large_logits_and_half_precision():
    y = np.array([[1e4, -1e4, 300.0, -300.0]])
    t = np.array([[1.0, 0.0, 0.0, 1.0]])
    for dtype in (np.float16, np.float32, np.float64):
        v = chainer.Variable(y.astype(dtype))
        loss = mixup_criterion(F.sigmoid_cross_entropy, v, t, t, 1.0)
        assert loss.dtype == dtype
        assert loss.array == 150
        loss.backward()
        np.testing.assert_array_equal(v.grad, [[0, 0, 0.25, -0.25]])


@pytest.mark.parametrize("lam", [0.3, np.array([0.1, 0.5, 0.9])])
def test_accuracy_of_probabilities(lam):
    y = RNG.randn(3, 4)
    a, b = probabilities(3)
    a[0, 0] = 0.5
    accuracy = mixup_score(F.binary_accuracy, y, a, b, lam)
    hits = [((y >= 0) == (t >= 0.5)).mean(1) for t in (a, b)]
    expected = (lam * hits[0] + (1 - lam) * hits[1]).mean()
    np.testing.assert_allclose(chainer.as_array(accuracy), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.full((2, 4), 1.5), r"probabilities in \[0, 1\]; found 1.5"),
        (np.full((2, 4), -1.0), r"probabilities in \[0, 1\]; found -1.0"),
        (np.full((2, 4), np.nan), "found nan"),
        (np.full((2, 4), 2), "must be 0, 1, or -1 to be ignored; found 2"),
        (np.zeros((2, 3)), r"of the prediction, \(2, 4\), not float64 of shape"),
    ],
)
def test_bad_targets_are_named(target, message):
    y = chainer.Variable(np.zeros((2, 4)))
    good = np.ones((2, 4), target.dtype)
    for a, b in ((target, target), (target, good), (good, target)):
        with pytest.raises(ValueError, match=message):
            mixup_criterion(F.sigmoid_cross_entropy, y, a, b, 0.6, 0.1)


def test_ones_that_are_mixed_remain_in_range():
    t = np.ones((100, 1), "f")
    y, lam = chainer.Variable(np.zeros((100, 1), "f")), np.linspace(0, 1, 100)
    mixup_criterion(F.sigmoid_cross_entropy, y, t, t.copy(), lam)


@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_a_classifier_learns_them(kind):
    rng = np.random.RandomState(0)
    x = rng.randn(60, 5).astype("f")
    t = (x[:, :3] > 0).astype("i")
    if kind == "probabilities":
        t = (0.1 + 0.8 * t).astype("f")
    net = chainer.Sequential(L.Linear(5, 20), F.relu, L.Linear(20, 3))
    model = ManifoldMixupClassifier(
        MixupLayers(net, ["input", "0"]),
        lossfun=F.sigmoid_cross_entropy,
        accfun=F.binary_accuracy,
        label_smoothing=0.1,
        seed=0,
    )
    optimizer = chainer.optimizers.Adam(0.01).setup(model)
    for _ in range(200):
        optimizer.update(model, x, t)
    with chainer.using_config("train", False):
        model(x, t)
    assert model.accuracy.array > 0.95
