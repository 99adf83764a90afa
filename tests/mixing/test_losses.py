import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import gradient_check
from hypothesis import given, settings
from hypothesis import strategies as st

from chainer_mmix.mixing import (
    mixup_softmax_cross_entropy,
    softmax_binary_cross_entropy,
)


def pair(rng, shape, n_class, ignored):
    a, b = rng.randint(0, n_class, (2, *shape)).astype(np.int32)
    if ignored:
        a[rng.rand(*shape) < 0.3] = -1
        b[rng.rand(*shape) < 0.3] = -1
    return a, b


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 6),
    rest=st.sampled_from([(), (3,), (2, 3)]),
    ignored=st.booleans(),
    weighted=st.booleans(),
    normalize=st.booleans(),
    reduce=st.sampled_from(["mean", "no"]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_equals_two_calls_of_chainer(
    seed, n, rest, ignored, weighted, normalize, reduce, dtype
):
    rng = np.random.RandomState(seed)
    x = (3 * rng.randn(n, 5, *rest)).astype(dtype)
    a, b = pair(rng, (n, *rest), 5, ignored)
    lam = rng.rand()
    options = {"normalize": normalize, "reduce": reduce}
    if weighted:
        options["class_weight"] = (rng.rand(5) + 0.5).astype(dtype)

    def chainer_twice(v):
        loss = lam * F.softmax_cross_entropy(v, a, **options)
        return loss + (1 - lam) * F.softmax_cross_entropy(v, b, **options)

    def ours(v):
        return mixup_softmax_cross_entropy(v, a, b, lam, **options)

    results = []
    for function in (ours, chainer_twice):
        v = chainer.Variable(x)
        loss = function(v)
        loss.grad = np.full_like(loss.array, 0.5)
        loss.backward()
        results.append((loss.array, v.grad))
    tolerance = {"e": 1e-2, "f": 1e-5, "d": 1e-12}[np.dtype(dtype).char]
    for mine, theirs in zip(*results, strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, tolerance, tolerance)


@pytest.mark.parametrize("reduce", ["mean", "no"])
@pytest.mark.parametrize("lam", [0.3, np.array([0.1, 1, 0, 0.6])])
def test_equals_float64_reference_with_lambda_per_batch_and_sample(lam, reduce):
    rng = np.random.RandomState(0)
    x, (a, b) = rng.randn(4, 3), pair(rng, (4,), 3, False)
    log_p = np.log(np.exp(x) / np.exp(x).sum(1, keepdims=True))
    n = np.arange(4)
    expected = -lam * log_p[n, a] - (1 - lam) * log_p[n, b]
    if reduce == "mean":
        expected = expected.mean()
    loss = mixup_softmax_cross_entropy(x, a, b, lam, reduce=reduce)
    np.testing.assert_allclose(loss.array, expected, rtol=1e-12)


@pytest.mark.parametrize("reduce", ["mean", "no"])
def test_gradients(reduce):
    rng = np.random.RandomState(1)
    x, (a, b) = rng.randn(4, 3, 2), pair(rng, (4, 2), 3, True)
    lam = rng.rand(4)
    gy = np.array(rng.randn(*(() if reduce == "mean" else (4, 2))))

    def loss(v):
        return mixup_softmax_cross_entropy(v, a, b, lam, reduce=reduce)

    check = {"atol": 1e-5, "rtol": 1e-5, "dtype": np.float64}
    gradient_check.check_backward(loss, x, gy, **check)
    ggx = rng.randn(*x.shape)
    gradient_check.check_double_backward(loss, x, gy, ggx, **check)


def test_all_labels_ignored_is_zero_loss():
    x = chainer.Variable(np.random.randn(2, 3).astype(np.float32))
    t = np.full(2, -1)
    loss = mixup_softmax_cross_entropy(x, t, t, 0.5)
    loss.backward()
    assert loss.array == 0 and not x.grad.any()


def test_empty_batch():
    t = np.empty(0, np.int32)
    loss = mixup_softmax_cross_entropy(np.empty((0, 3), np.float32), t, t, 0.5)
    assert loss.array == 0


def test_large_logits_do_not_overflow():
    x = np.array([[1e4, 0, -1e4]], np.float32)
    t = np.array([0])
    assert mixup_softmax_cross_entropy(x, t, t, 0.5).array == 0


@pytest.mark.parametrize("label", [-2, 3, 1000])
def test_label_out_of_range_is_named(label):
    x, good = np.zeros((2, 3), np.float32), np.array([0, 1])
    bad = np.array([0, label])
    for targets in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match=rf"\[0, 3\).*found {label}"):
            mixup_softmax_cross_entropy(x, *targets, 0.5)


def test_float_labels_and_wrong_shapes_are_refused():
    x = np.zeros((2, 3), np.float32)
    for bad in (np.zeros(2, np.float32), np.zeros(3, int), np.zeros((2, 1), int)):
        with pytest.raises(chainer.utils.type_check.InvalidType):
            mixup_softmax_cross_entropy(x, bad, np.zeros(2, int), 0.5)
    with pytest.raises(ValueError, match="'sum'"):
        t = np.zeros(2, int)
        mixup_softmax_cross_entropy(x, t, t, 0.5, reduce="sum")


def test_half_precision_keeps_a_lambda_that_it_would_round_to_one():
    lam = 0.9999
    assert np.float16(lam) == 1
    x = np.array([[0, -30000]], np.float16)  # the second label costs 30000
    a, b = np.array([0]), np.array([1])
    loss = mixup_softmax_cross_entropy(x, a, b, lam).array
    np.testing.assert_allclose(loss, (1 - lam) * 30000, rtol=1e-3)


@pytest.mark.parametrize("reduce", ["mean", "no"])
@pytest.mark.parametrize("weighted", [False, True])
def test_label_smoothing_equals_float64_reference(weighted, reduce):
    rng = np.random.RandomState(0)
    x, (a, b) = rng.randn(4, 5, 3), pair(rng, (4, 3), 5, True)
    lam, weight = rng.rand(4), rng.rand(5) + 0.5 if weighted else np.ones(5)
    log_p = np.log(np.exp(x) / np.exp(x).sum(1, keepdims=True))
    expected = np.zeros((4, 3))
    for t, share in ((a, lam), (b, 1 - lam)):
        soft = 0.9 * np.eye(5)[t].transpose(0, 2, 1) + 0.1 / 5
        # torch.nn.functional.cross_entropy: each class with its own weight
        term = -share[:, None] * (weight[:, None] * soft * log_p).sum(1) * (t != -1)
        expected += term / (t != -1).sum() if reduce == "mean" else term
    if reduce == "mean":
        expected = expected.sum()
    options = {"class_weight": weight if weighted else None, "reduce": reduce}

    def loss(v):
        return mixup_softmax_cross_entropy(v, a, b, lam, label_smoothing=0.1, **options)

    np.testing.assert_allclose(loss(x).array, expected, rtol=1e-12)
    gy = np.array(rng.randn(*np.shape(expected)))
    check = {"atol": 1e-5, "rtol": 1e-5, "dtype": np.float64}
    gradient_check.check_backward(loss, x, gy, **check)
    gradient_check.check_double_backward(loss, x, gy, rng.randn(*x.shape), **check)


def test_bad_label_smoothing_is_named():
    x, t = np.zeros((2, 3), np.float32), np.zeros(2, int)
    with pytest.raises(ValueError, match=r"label_smoothing .* \[0, 1\], not 1.5"):
        mixup_softmax_cross_entropy(x, t, t, 0.5, label_smoothing=1.5)


def bce_reference(y, t):
    """torch.nn.BCELoss()(softmax(y), t), in float64."""
    p = np.exp(y.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    return -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()


@pytest.mark.parametrize("rest", [(), (3,), (2, 3)])
def test_binary_cross_entropy_equals_float64_reference(rest):
    rng = np.random.RandomState(0)
    y, t = 3 * rng.randn(4, 5, *rest), rng.randint(0, 5, (4, *rest))
    one_hot = np.moveaxis(np.eye(5)[t], -1, 1)
    soft = rng.rand(*y.shape)
    for target, expected in ((t, one_hot), (one_hot, one_hot), (soft, soft)):
        loss = softmax_binary_cross_entropy(y, target)
        np.testing.assert_allclose(loss.array, bce_reference(y, expected), rtol=1e-10)

    def function(v):
        return softmax_binary_cross_entropy(v, soft)

    gy = np.array(0.5)
    gradient_check.check_backward(function, y, gy, dtype=np.float64, atol=1e-5)
    ggy = rng.randn(*y.shape)
    gradient_check.check_double_backward(
        function, y, gy, ggy, dtype=np.float64, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_binary_cross_entropy_of_a_sure_prediction_is_finite(dtype):
    y = chainer.Variable(np.array([[60, 0, -60]], dtype))  # p rounds to 1, 0, 0
    loss = softmax_binary_cross_entropy(y, np.array([1]))
    # -log p_1 = 60, and -log(1 - p_0) = 60
    assert loss.dtype == dtype and loss.array == pytest.approx(120 / 3, rel=1e-3)
    loss.backward()
    np.testing.assert_allclose(y.grad, [[2 / 3, -2 / 3, 0]], atol=1e-3)


@pytest.mark.parametrize("n_class", [2, 10, 100])
def test_binary_cross_entropy_has_a_smaller_gradient(n_class):
    # The factor that the documentation gives.
    gradients, t = [], np.arange(4) % n_class
    for lossfun in (softmax_binary_cross_entropy, F.softmax_cross_entropy):
        y = chainer.Variable(np.zeros((4, n_class)))
        lossfun(y, t).backward()
        gradients.append(y.grad)
    np.testing.assert_allclose(gradients[0] * (n_class - 1), gradients[1], atol=1e-12)


def test_binary_cross_entropy_of_bad_targets():
    y = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"one class, shape \(2, 1\).*sigmoid_cross"):
        softmax_binary_cross_entropy(y[:, :1], np.array([0, 0]))
    with pytest.raises(ValueError, match=r"\[0, 3\).* found 7"):
        softmax_binary_cross_entropy(y, np.array([0, 7]))
    with pytest.raises(ValueError, match=r"shape \(2,\), or .* \(2, 3\), not int64"):
        softmax_binary_cross_entropy(y, np.zeros((2, 3), int))


@pytest.mark.gpu
@pytest.mark.parametrize("reduce", ["mean", "no"])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_gpu_equals_cpu(dtype, per_sample, reduce):
    rng = np.random.RandomState(0)
    x = rng.randn(6, 5, 3).astype(dtype)
    a, b = pair(rng, (6, 3), 5, True)
    lam = rng.rand(6).astype(np.float32) if per_sample else 0.3
    weight = (rng.rand(5) + 0.5).astype(dtype)
    results = []
    for device in map(chainer.get_device, ("@numpy", "@cupy:0")):
        v = chainer.Variable(device.send(x))
        loss = mixup_softmax_cross_entropy(
            v,
            *device.send((a, b)),
            lam,
            class_weight=device.send(weight),
            reduce=reduce,
        )
        loss.grad = device.xp.ones_like(loss.array)
        loss.backward()
        arrays = (loss.array, v.grad)
        results.append(chainer.get_device("@numpy").send(arrays))
    tolerance = 1e-2 if dtype == np.float16 else 1e-5
    for cpu, gpu in zip(*results, strict=True):
        np.testing.assert_allclose(cpu, gpu, tolerance, tolerance)
