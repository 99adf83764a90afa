import functools

import chainer
import chainer.functions as F
import numpy as np
import pytest

from chainer_mmix.mixing import (
    ignored_label,
    mixup_accuracy,
    mixup_criterion,
    mixup_softmax_cross_entropy,
    softmax_binary_cross_entropy,
)

LAMBDAS = [0.3, np.array([0.1, 1, 0, 0.6])]


def labels(seed=0, n=4, n_class=3):
    return np.random.RandomState(seed).randint(0, n_class, (2, n))


def softmax(y):
    return np.exp(y) / np.exp(y).sum(1, keepdims=True)


def mixed(a, b, lam):
    lam = np.reshape(lam, (-1, 1))
    return lam * a + (1 - lam) * b


def test_accuracy_is_lambda_weighted():
    y = np.eye(3, dtype=np.float32)  # predicts 0, 1, 2
    a, b = np.array([0, 0, 0]), np.array([1, 1, 0])
    assert mixup_accuracy(y, a, b, 0.7).array == pytest.approx((0.7 + 0.3) / 3)
    lam = np.array([0.5, 0.2, 1])
    assert mixup_accuracy(y, a, b, lam).array == pytest.approx((0.5 + 0.8) / 3)
    two = 0.7 * F.accuracy(y, a).array + 0.3 * F.accuracy(y, b).array
    assert mixup_accuracy(y, a, b, 0.7).array == pytest.approx(two)


def test_accuracy_of_one_hot_targets_is_that_of_their_labels():
    y, (a, b) = np.random.RandomState(1).randn(4, 3), labels()
    for lam in LAMBDAS:
        one_hot = mixup_criterion(F.accuracy, y, np.eye(3)[a], np.eye(3)[b], lam)
        assert one_hot.array == mixup_accuracy(y, a, b, lam).array
    with pytest.raises(TypeError, match=r"float64 and shape \(4,\): pass accfun"):
        mixup_accuracy(y, a / 2, b / 2, 0.5)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_accuracy_leaves_out_ignored_labels(lam):
    y, (a, b) = np.random.RandomState(1).randn(4, 3), labels()
    a[0], b[1:3] = -1, -1
    share, hits = np.broadcast_to(lam, 4), y.argmax(1)
    expected = (share * (hits == a))[a != -1].sum() / 3
    expected += ((1 - share) * (hits == b))[b != -1].sum() / 2
    accfun = functools.partial(F.accuracy, ignore_label=-1)
    accuracy = mixup_criterion(accfun, y, a, b, lam)
    np.testing.assert_allclose(accuracy.array, expected)


def test_several_labels_have_no_accuracy_of_one():
    y, t = np.zeros((2, 3)), np.zeros((2, 3), int)
    with pytest.raises(TypeError, match="binary_accuracy for several labels"):
        mixup_criterion(F.accuracy, y, t, t[::-1], 0.5)


def test_what_cannot_be_smoothed_is_named():
    t = np.zeros((2, 3))
    for criterion in (F.mean_squared_error, F.hinge):
        with pytest.raises(ValueError, match=f"label_smooth.* {criterion.__name__}"):
            mixup_criterion(criterion, t, t, t[::-1], 0.5, 0.1)


def test_accuracy_keeps_a_lambda_that_half_precision_would_round_to_one():
    y = np.array([[0, 1]], np.float16)  # predicts the second label
    accuracy = mixup_accuracy(y, np.array([0]), np.array([1]), 0.9999)
    np.testing.assert_allclose(accuracy.array, 1e-4, rtol=1e-2)


@pytest.mark.parametrize("lam", LAMBDAS)
@pytest.mark.parametrize("label_smoothing", [0, 0.2])
@pytest.mark.parametrize(
    "criterion", [F.softmax_cross_entropy, softmax_binary_cross_entropy]
)
@pytest.mark.parametrize("form", ["labels", "one-hot"])
def test_classification_equals_the_mixed_target(form, criterion, label_smoothing, lam):
    y, (a, b) = np.random.RandomState(1).randn(4, 3), labels()
    target = mixed(np.eye(3)[a], np.eye(3)[b], lam)
    target = (1 - label_smoothing) * target + label_smoothing / 3
    p = softmax(y)
    if criterion is F.softmax_cross_entropy:
        expected = -(target * np.log(p)).sum(1).mean()
    else:
        expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
    pair = (a, b) if form == "labels" else (np.eye(3)[a], np.eye(3)[b])
    loss = mixup_criterion(criterion, y, *pair, lam, label_smoothing)
    np.testing.assert_allclose(loss.array, expected, rtol=1e-10)


def test_options_of_softmax_cross_entropy_are_kept():
    y = chainer.Variable(np.random.RandomState(0).randn(4, 3))
    (a, b), weight = labels(), np.array([1.0, 5, 0.1])
    a[0] = 2
    options = {"class_weight": weight, "ignore_label": 2, "normalize": False}
    criterion = functools.partial(
        F.softmax_cross_entropy, enable_double_backprop=True, **options
    )
    loss = mixup_criterion(criterion, y, a, b, 0.3)
    expected = 0.3 * criterion(y, a).array + 0.7 * criterion(y, b).array
    assert loss.array == pytest.approx(expected)
    per_sample = np.array([0.2, 0.5, 0, 1])
    loss = mixup_criterion(criterion, y, a, b, per_sample, 0.1)
    expected = mixup_softmax_cross_entropy(
        y, a, b, per_sample, label_smoothing=0.1, **options
    )
    assert loss.array == expected.array


def test_a_class_weight_that_chainer_would_ignore_is_refused():
    y, soft, weight = np.zeros((2, 3)), np.eye(3)[:2], np.array([1.0, 2, 3])
    plain = F.softmax_cross_entropy(y, soft).array
    assert F.softmax_cross_entropy(y, soft, class_weight=weight).array == plain
    criterion = functools.partial(F.softmax_cross_entropy, class_weight=weight)
    with pytest.raises(ValueError, match="ignores class_weight"):
        mixup_criterion(criterion, y, soft, soft[::-1], 0.5)
    with pytest.raises(ValueError, match="ignores class_weight"):
        mixup_criterion(criterion, y, soft, soft, 1.0)  # not mixed


@pytest.mark.parametrize("lam", LAMBDAS)
def test_multi_label_targets(lam):
    rng = np.random.RandomState(0)
    y = rng.randn(4, 5)
    a, b = rng.randint(-1, 2, (2, 4, 5))  # -1: not known
    weight = np.broadcast_to(np.reshape(lam, (-1, 1)), y.shape)
    p, loss, accuracy = 1 / (1 + np.exp(-y)), 0, 0
    for t, w in ((a, weight), (b, 1 - weight)):
        known = t != -1
        entropy = -np.where(t == 1, np.log(p), np.log(1 - p))
        loss += (w * entropy)[known].sum() / known.sum()
        accuracy += (w * ((p >= 0.5) == t))[known].sum() / known.sum()
    result = mixup_criterion(F.sigmoid_cross_entropy, y, a, b, lam)
    np.testing.assert_allclose(result.array, loss, rtol=1e-10)
    result = mixup_criterion(F.binary_accuracy, y, a, b, lam)
    np.testing.assert_allclose(result.array, accuracy, rtol=1e-10)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_regression_targets_are_mixed(lam):
    rng = np.random.RandomState(0)
    y = chainer.Variable(rng.randn(4, 2))
    a, b = rng.randn(2, 4, 2)
    target = mixed(a, b, lam)
    loss = mixup_criterion(F.mean_absolute_error, y, a, b, lam)
    assert loss.array == pytest.approx(np.abs(y.array - target).mean())
    loss = mixup_criterion(F.mean_squared_error, y, a, b, lam)
    assert loss.array == pytest.approx(((y.array - target) ** 2).mean())
    loss.backward()
    np.testing.assert_allclose(y.grad, 2 * (y.array - target) / 8)


def test_half_precision_targets_are_rounded_once():
    a, b = np.zeros((1, 1), np.float16), np.full((1, 1), 1000, np.float16)
    seen = []
    mixup_criterion(lambda y, t: seen.append(t) or 0.0, a, a, b, 0.9999)
    assert seen[0].dtype == np.float16 and seen[0] == np.float16(0.1)


def test_any_function_is_applied_to_both_labels():
    def criterion(y, t):  # a loss that is not linear in the target
        return F.sum((y[:, 0] - t) ** 2)

    y = chainer.Variable(np.array([[1.0], [2.0]]))
    a, b = np.array([0, 0]), np.array([2, 1])
    loss = mixup_criterion(criterion, y, a, b, 0.25)
    assert loss.array == pytest.approx(0.25 * (1 + 4) + 0.75 * (1 + 1))


def test_any_function_with_lambda_per_sample():
    y = np.array([[1.0], [2.0]], np.float32)
    a, b = np.array([0, 0]), np.array([1, 1])
    lam = np.array([1, 0.25], np.float32)

    def per_sample(y, t):
        return F.squared_error(y[:, 0], t.astype(y.dtype))

    loss = mixup_criterion(per_sample, y, a, b, lam)
    assert loss.array == pytest.approx((1 + (0.25 * 4 + 0.75 * 1)) / 2)
    with pytest.raises(ValueError, match=r"one value a sample, shape \(2,\)"):
        mixup_criterion(lambda y, t: F.mean(per_sample(y, t)), y, a, b, lam)


@pytest.mark.parametrize("normalize", [True, False])
def test_several_labels_a_sample_with_options(normalize):
    rng = np.random.RandomState(0)
    y, lam = rng.randn(4, 5), np.array([0.1, 1, 0, 0.6])
    a, b = rng.randint(-1, 2, (2, 4, 5))
    criterion = functools.partial(F.sigmoid_cross_entropy, normalize=normalize)
    p, expected = 1 / (1 + np.exp(-y)), 0
    for t, w in ((a, lam), (b, 1 - lam)):
        entropy = -np.where(t == 1, np.log(p), np.log(1 - p)) * (t != -1)
        expected += (w[:, None] * entropy).sum() / ((t != -1).sum() if normalize else 4)
    np.testing.assert_allclose(mixup_criterion(criterion, y, a, b, lam).array, expected)


@pytest.mark.parametrize("bad", [-2, 3, 255])
def test_a_label_beyond_the_logits_is_named_mixed_or_not(bad):
    y, (a, b) = np.random.RandomState(1).randn(4, 3).astype("f"), labels()
    wrong = a.copy()
    wrong[1] = bad
    for function in (F.accuracy, F.softmax_cross_entropy):
        for pair in ((wrong, b), (a, wrong), (wrong, wrong)):
            with pytest.raises(ValueError, match=rf"in \[0, 3\).* found {bad}"):
                mixup_criterion(function, y, *pair, 1.0 if pair[0] is pair[1] else 0.3)
        ignoring = functools.partial(function, ignore_label=bad)
        assert np.isfinite(mixup_criterion(ignoring, y, wrong, b, 0.3).array)
    with pytest.raises(ValueError, match=f"found {bad}"):
        mixup_accuracy(y, wrong, b, 0.3)


def test_labels_of_a_map():
    y = np.random.RandomState(0).randn(2, 3, 4, 5).astype("f")
    a, b = np.random.RandomState(1).randint(0, 3, (2, 2, 4, 5))
    a[:, 1:3], b[1] = 255, 255
    hits = [(y.argmax(1) == t)[t != 255].mean() for t in (a, b)]
    accfun = functools.partial(F.accuracy, ignore_label=255)
    accuracy = mixup_criterion(accfun, y, a, b, 0.3).array
    np.testing.assert_allclose(accuracy, 0.3 * hits[0] + 0.7 * hits[1], rtol=1e-6)
    accuracy = mixup_criterion(accfun, y, a, a, 1.0).array
    np.testing.assert_allclose(accuracy, hits[0], rtol=1e-6)


def test_a_criterion_that_is_not_hashable():
    class Loss:
        __hash__ = None

        def __call__(self, y, t):
            return F.softmax_cross_entropy(y, t)

    y, (a, b) = np.random.RandomState(1).randn(4, 3), labels()
    loss = mixup_criterion(Loss(), y, a, b, 0.3)
    expected = mixup_softmax_cross_entropy(y, a, b, 0.3)
    np.testing.assert_allclose(loss.array, expected.array, rtol=1e-12)


def own_loss(y, t, ignore_label=255):
    return F.softmax_cross_entropy(y, t, ignore_label=ignore_label)


@pytest.mark.parametrize(
    ("lossfun", "label"),
    [
        (F.softmax_cross_entropy, -1),
        (functools.partial(F.softmax_cross_entropy, ignore_label=255), 255),
        (functools.partial(F.softmax_cross_entropy, normalize=False), -1),
        (mixup_softmax_cross_entropy, -1),
        (F.sigmoid_cross_entropy, -1),
        (functools.partial(F.sigmoid_cross_entropy, normalize=False), -1),
        (F.binary_accuracy, -1),
        (F.accuracy, None),
        (functools.partial(F.accuracy, ignore_label=np.int32(7)), 7),
        (softmax_binary_cross_entropy, None),
        (F.mean_squared_error, None),
        (own_loss, 255),
        (functools.partial(own_loss, ignore_label=None), None),
        (lambda y, t, ignore_label: F.mean(y), None),
        (max, None),
    ],
)
def test_the_label_that_a_loss_leaves_out(lossfun, label):
    assert ignored_label(lossfun) == label


@pytest.mark.gpu
@pytest.mark.parametrize("lam", [np.float32(0.3), np.array([0.1, 1, 0, 0.6], "f")])
def test_gpu_equals_cpu(lam):
    y, (a, b) = np.random.RandomState(1).randn(4, 3).astype("f"), labels()
    soft_a, soft_b = (np.eye(3, dtype="f")[t] for t in (a, b))
    ints = [np.int32([t == k for k in range(3)]).T for t in (a, b)]
    for criterion, pair, smoothing in (
        (F.accuracy, (a, b), 0),
        (softmax_binary_cross_entropy, (a, b), 0.1),
        (F.softmax_cross_entropy, (soft_a, soft_b), 0.1),
        (F.mean_squared_error, (soft_a, soft_b), 0),
        (F.sigmoid_cross_entropy, ints, 0),
        (F.binary_accuracy, ints, 0),
    ):
        cpu = mixup_criterion(criterion, y, *pair, lam, smoothing)
        device = chainer.get_device("@cupy:0")
        gpu = mixup_criterion(
            criterion, device.send(y), *device.send(tuple(pair)), lam, smoothing
        )
        np.testing.assert_allclose(cpu.array, gpu.array.get(), rtol=1e-5)
