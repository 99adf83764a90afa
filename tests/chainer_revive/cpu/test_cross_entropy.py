import functools
from unittest import mock

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import function_hooks, gradient_check
from chainer.functions.activation import log_softmax
from hypothesis import given
from hypothesis import strategies as st

from chainer_mmix.mixing import (
    losses,
    mixup_accuracy,
    mixup_criterion,
    mixup_softmax_cross_entropy,
)

pytestmark = pytest.mark.usefixtures("path")
LAYOUTS = ["channels first", "channels last", "every second", "reversed"]
INTEGERS = ["int8", "int32", "int64"]


def logits(n, n_class, dtype="float32"):
    return (4 * np.random.RandomState(0).randn(n, n_class)).astype(dtype)


def labels(seed, n, n_class, ignore_label=None, dtype="int32"):
    random = np.random.RandomState(seed)
    t = random.randint(0, n_class, n).astype(dtype)
    if ignore_label is not None:
        t[random.rand(n) < 0.4] = ignore_label
    return t


def loss_and_gradient(function, x, gy=0.5):
    x = chainer.Variable(x)
    loss = function(x)
    loss.grad = np.full_like(loss.array, gy)
    loss.backward()
    return loss.array, x.grad


@given(
    n=st.integers(1, 6),
    n_class=st.integers(1, 5),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(["float32", "float64"]),
    integer=st.sampled_from(INTEGERS),
    ignore_label=st.sampled_from([-1, 0, 100, None]),
    normalize=st.booleans(),
    odd=st.sampled_from([None, np.nan, np.inf, -np.inf]),
)
def test_as_in_chainer(
    n,
    n_class,
    layout,
    dtype,
    integer,
    ignore_label,
    normalize,
    odd,
    lay_out,
    chainers_own,
):
    x = logits(n, n_class, dtype)
    if odd is not None:
        x.reshape(-1)[::4] = odd
    t = labels(1, n, n_class, ignore_label, integer)

    def function(x):
        return F.softmax_cross_entropy(x, t, normalize, ignore_label=ignore_label)

    with np.errstate(invalid="ignore"):
        with chainers_own():
            wanted = loss_and_gradient(function, x)
        got = loss_and_gradient(function, lay_out(x, layout))
    for result, right in zip(got, wanted, strict=True):
        assert result.dtype == dtype and result.shape == right.shape
        np.testing.assert_allclose(result, right, 1e-5, 1e-6)


def reference(x, targets, weights, ignore_label, normalize, label_smoothing):
    """The loss and its gradient in float64."""
    e = np.exp(x.astype("float64"))
    p = e / e.sum(1, keepdims=True)
    loss, gradient = 0, 0
    for t, weight in zip(targets, weights, strict=True):
        valid = t != ignore_label
        weight = weight * valid / max(1, valid.sum() if normalize else len(t))
        target = np.eye(x.shape[1])[np.where(valid, t, 0)]
        target = (1 - label_smoothing) * target + label_smoothing / x.shape[1]
        loss -= (weight[:, None] * target * np.log(p)).sum()
        gradient += weight[:, None] * (p - target)
    return loss, gradient


@given(
    n=st.integers(1, 6),
    n_class=st.integers(1, 5),
    layout=st.sampled_from(LAYOUTS),
    dtypes=st.tuples(*[st.sampled_from(INTEGERS)] * 2),
    ignore_label=st.sampled_from([-1, 0, 100]),
    normalize=st.booleans(),
    label_smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    each=st.booleans(),
)
def test_two_targets(
    n, n_class, layout, dtypes, ignore_label, normalize, label_smoothing, each, lay_out
):
    x = logits(n, n_class)
    a, b = (
        labels(i, n, n_class, ignore_label, dtype) for i, dtype in enumerate(dtypes)
    )
    lam = np.random.RandomState(3).rand(n) if each else 0.3
    lam_before = np.copy(lam)

    def function(x):
        options = normalize, None, ignore_label, "mean", label_smoothing
        return mixup_softmax_cross_entropy(x, a, b, lam, *options)

    loss, gradient = loss_and_gradient(function, lay_out(x, layout), 0.5)
    options = ignore_label, normalize, label_smoothing
    wanted, wanted_gradient = reference(x, (a, b), (lam, 1 - lam), *options)
    assert loss.dtype == gradient.dtype == "float32"
    np.testing.assert_allclose(loss, wanted, 1e-5, 1e-5)
    np.testing.assert_allclose(gradient, 0.5 * wanted_gradient, 1e-5, 1e-6)
    np.testing.assert_array_equal(lam, lam_before)


def plain(x, t):
    return F.softmax_cross_entropy(x, t)


def mixed(x, t):
    return mixup_softmax_cross_entropy(x, t, t[::-1], 0.3)


def test_compiled_loops_are_at_work(path):
    if path == "numpy":
        pytest.skip("has none")
    x, t = logits(3, 4), labels(0, 3, 4)
    with (
        mock.patch.object(log_softmax, "_log_softmax", None),
        mock.patch.object(losses, "_log_softmax", None),
    ):
        for function in (plain, mixed):
            loss_and_gradient(lambda x, f=function: f(x, t), x)


@pytest.mark.parametrize("function", [plain, mixed])
def test_large_batches_and_other_options(function, chainers_own):
    x, t = logits(300, 60), labels(0, 300, 60)
    with chainers_own():
        wanted = loss_and_gradient(lambda x: function(x, t), x)
    got = loss_and_gradient(lambda x: function(x, t), x)
    for result, right in zip(got, wanted, strict=True):
        np.testing.assert_allclose(result, right, 1e-5, 1e-7)


@pytest.mark.parametrize("function", [plain, mixed])
def test_gradient_of_the_dtype_of_the_logits(function):
    x, gy = chainer.Variable(logits(3, 4)), chainer.Variable(np.array(0.5))
    (gx,) = chainer.grad([function(x, labels(0, 3, 4))], [x], [gy])
    assert gx.dtype == "float32"


@pytest.mark.parametrize("normalize", [None, np.True_, 0.5])
def test_normalize_may_be_anything(normalize):
    x, t = logits(3, 4), np.array([0, -1, 2])
    found = F.softmax_cross_entropy(x, t, normalize=normalize)
    right = F.softmax_cross_entropy(x, t, normalize=bool(normalize))
    assert found.array == right.array


@pytest.mark.parametrize("function", [plain, mixed])
def test_gradient_of_a_small_difference(function):
    t = labels(0, 3, 4)
    check = {"eps": 1e-2, "atol": 1e-3, "rtol": 1e-3}
    gy = np.array(0.5, "float32")
    gradient_check.check_backward(lambda x: function(x, t), logits(3, 4), gy, **check)


def test_gradient_of_the_gradient():
    t, start, results = labels(0, 3, 4), np.random.RandomState(4).randn(3, 4), []
    for dtype in ("float32", "float64"):
        arrays = logits(3, 4, dtype), np.array(0.5, dtype), start.astype(dtype)
        x, gy, ggx = map(chainer.Variable, arrays)
        (gx,) = chainer.grad([mixed(x, t)], [x], [gy], enable_double_backprop=True)
        second = chainer.grad([gx], [x, gy], [ggx])
        results.append([v.array for v in (gx, *second)])
    for single, double in zip(*results, strict=True):
        assert single.dtype == "float32"
        np.testing.assert_allclose(single, double, 1e-4, 1e-6)
    x = chainer.Variable(logits(3, 4))
    plain(x, t).backward(enable_double_backprop=True)
    with pytest.raises(RuntimeError, match="double-backprop"):
        F.sum(x.grad_var).backward()


@pytest.mark.parametrize("function", [plain, mixed])
def test_all_labels_ignored(function):
    t = np.full(3, -1)
    loss, gradient = loss_and_gradient(lambda x: function(x, t), logits(3, 4))
    assert loss == 0 and not gradient.any()


def test_large_logits():
    x = np.array([[1e30, 0, -1e30], [-1e30, -1e30, 1e30]], "float32")
    t = np.array([0, 2])
    loss, gradient = loss_and_gradient(lambda x: plain(x, t), x)
    assert loss == 0 and not gradient.any()


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("label", [-5, -2, 4, 1 << 40])
@pytest.mark.parametrize("function", [plain, mixed])
def test_labels_out_of_range_are_what_they_are_elsewhere(
    function, label, debug, chainers_own
):
    x, t = logits(3, 4), np.array([0, label, -1])

    def outcome():
        try:
            return loss_and_gradient(lambda x: function(x, t), x)[0]
        except (IndexError, ValueError) as error:
            return type(error), str(error)

    with chainer.using_config("debug", debug):
        with chainers_own():
            wanted = outcome()
        assert outcome() == wanted


def test_hooks_see_what_they_see_in_chainer(chainers_own):
    def names():
        hook = function_hooks.TimerHook()
        with hook:
            loss_and_gradient(lambda x: plain(x, labels(0, 3, 4)), logits(3, 4))
        return [name for name, _ in hook.call_history]

    with chainers_own():
        wanted = names()
    assert names() == wanted


@pytest.mark.parametrize("cache_score", [False, True])
def test_chainers_own_backward_after_ours_forward(cache_score, chainers_own):
    def outcome():
        x = chainer.Variable(logits(3, 4))
        t = np.array([0, -1, 2])
        loss = F.softmax_cross_entropy(x, t, cache_score=cache_score)
        with function_hooks.TimerHook():
            loss.backward()
        return loss.creator.y is None, x.grad

    with chainers_own():
        wanted = outcome()
    found = outcome()
    assert found[0] == wanted[0] == (not cache_score)
    np.testing.assert_allclose(found[1], wanted[1], 1e-5, 1e-7)


@given(
    n=st.integers(1, 6),
    n_class=st.integers(2, 5),
    layout=st.sampled_from(LAYOUTS),
    ignore_label=st.sampled_from([None, -1, 0]),
    odd=st.sampled_from([None, np.nan, np.inf, -np.inf]),
    each=st.booleans(),
)
def test_accuracy(n, n_class, layout, ignore_label, odd, each, lay_out):
    # Ties, too.
    y = np.random.RandomState(0).randint(0, 2, (n, n_class)).astype("float32")
    if odd is not None:
        y.reshape(-1)[1::3] = odd
    a, b = (labels(i, n, n_class, ignore_label) for i in range(2))
    if ignore_label is not None:
        a[0] = ignore_label
    lam = np.random.RandomState(3).rand(n) if each else 0.3
    wanted = 0
    for t, weight in ((a, lam), (b, 1 - lam)):
        valid = np.full(n, True) if ignore_label is None else t != ignore_label
        hits = weight * (y.argmax(axis=1) == t) * valid
        wanted += hits.sum() / max(1, valid.sum())
    got = mixup_accuracy(lay_out(y, layout), a, b, lam, ignore_label)
    assert got.dtype == "float32" and got.shape == ()
    np.testing.assert_allclose(got.array, wanted, 1e-6)


def test_accuracy_of_too_few_labels():
    t = np.array([0])
    with pytest.raises(ValueError):
        mixup_accuracy(logits(3, 4), t, t, 0.3)


@pytest.mark.parametrize("ignore_label", [None, -1])
def test_accuracy_without_mixing_is_chainers_to_the_bit(ignore_label):
    y, t = logits(7, 3), labels(0, 7, 3, ignore_label)
    wanted = F.accuracy(y, t, ignore_label).array
    criterion = functools.partial(F.accuracy, ignore_label=ignore_label)
    got = mixup_criterion(criterion, chainer.Variable(y), t, t, 1.0)
    assert got.array == wanted and got.dtype == wanted.dtype
