import functools

import chainer.functions as F
import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from chainer_mmix.mixing import mixup_accuracy, mixup_score, top_k_accuracy


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_it_is_that_of_scikit_learn(n, k):
    rng = np.random.RandomState(0)
    y, t = rng.randn(n, 6).astype("f"), rng.randint(0, 6, n).astype("i")
    expected = top_k_accuracy_score(t, y, k=k, labels=np.arange(6))
    accuracy = top_k_accuracy(y, t, k)
    assert float(accuracy.array) == pytest.approx(expected) and accuracy.dtype == "f"
    soft = np.eye(6, dtype="f")[t]
    assert float(top_k_accuracy(y, soft, k).array) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_of_equal_scores_the_first_classes_come_first(k):
    y, t = np.zeros((4, 4), "f"), np.arange(4, dtype="i")
    assert float(top_k_accuracy(y, t, k).array) == k / 4
    if k == 1:
        assert float(F.accuracy(y, t).array) == 1 / 4


def test_nan_is_no_hit():
    y = np.array([[np.nan, 1, 2], [0, 1, np.nan]], "f")
    assert float(top_k_accuracy(y, np.array([0, 2], "i"), 2).array) == 0
    assert float(top_k_accuracy(y, np.array([2, 1], "i"), 2).array) == 1


@pytest.mark.parametrize("places", [(), (3, 2)])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("ignore_label", [None, -1, 255])
def test_it_is_weighted_by_lambda(n, per_sample, places, ignore_label):
    rng = np.random.RandomState(0)
    y = rng.randn(n, 6, *places).astype("f")
    a, b = rng.randint(0, 6, (2, n, *places)).astype("i")
    if ignore_label is not None:
        a[rng.rand(*a.shape) < 0.3] = ignore_label
    lam = rng.rand(n).astype("f") if per_sample else 0.3
    order = np.argsort(-y, axis=1)[:, :3]
    weights = np.broadcast_to(np.reshape(lam, (-1,) + (1,) * len(places)), a.shape)
    expected = 0
    for t, weight in ((a, weights), (b, 1 - weights)):
        hits = (order == t[:, None]).any(axis=1) * weight
        valid = t != ignore_label
        expected += (hits * valid).sum() / max(valid.sum(), 1)
    options = {"k": 3, "ignore_label": ignore_label}
    score = mixup_score(functools.partial(top_k_accuracy, **options), y, a, b, lam)
    assert float(score.array) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    score = mixup_accuracy(y, a, b, lam, **options)
    assert float(score.array) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("k", [0, 3, 5])
def test_k_that_tells_nothing_is_an_error(k):
    y, t = np.zeros((2, 3), "f"), np.zeros(2, "i")
    with pytest.raises(ValueError, match=f"the top {k} of 3 classes .* from 1 to 2"):
        top_k_accuracy(y, t, k)
