import functools

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix.analysis.predictions import (
    accuracies,
    counted,
    ignored_by,
    labels_of,
    n_right,
)


def test_labels_and_those_of_probabilities():
    t = np.array([2, 0, 1], np.int32)
    np.testing.assert_array_equal(labels_of(t), t)
    soft = np.array([[0.1, 0.2, 0.7], [0.6, 0.4, 0], [0.3, 0.4, 0.3]], np.float32)
    np.testing.assert_array_equal(labels_of(soft), t)


@pytest.mark.parametrize(
    "t",
    [
        *(np.zeros(3, np.float32), np.zeros((3, 2), np.int32), np.zeros(3, bool)),
        # Numbers to predict, and several labels a sample.
        *(np.zeros((3, 1), np.float32), np.ones((3, 2), np.float32)),
    ],
)
def test_other_targets_are_an_error(t):
    with pytest.raises(TypeError, match=f"{t.dtype} and shape"):
        labels_of(t)


def test_what_counts_of_a_map():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((2, 3, 4, 5))
    t = rng.integers(0, 3, (2, 4, 5)).astype(np.uint8)
    t[:, 1:3] = 255
    rows, labels = counted(scores, t, 255)
    expected = [
        (scores[n, :, i, j].tolist(), t[n, i, j])
        for n in range(2)
        for i in (0, 3)
        for j in range(5)
    ]
    assert list(zip(rows.tolist(), labels, strict=True)) == expected
    rows, labels = counted(scores, np.eye(3)[t % 3].transpose(0, 3, 1, 2), 2)
    np.testing.assert_array_equal(labels, (t % 3).ravel())  # probabilities all count
    with pytest.raises(ValueError, match="found 255"):
        counted(scores, t, -1)


@pytest.mark.parametrize(
    "scores, t",
    [
        (np.zeros((4, 1)), np.zeros(4, int)),
        (np.zeros(4), np.zeros(4, int)),
        (np.zeros((4, 2)), np.zeros((4, 1), int)),
        (np.zeros((4, 2)), np.zeros((4, 2), int)),
        (np.zeros((4, 2)), np.ones((4, 2))),
        (np.zeros((4, 2, 3)), np.zeros(4, int)),
        ((np.zeros((4, 2)), 0), np.zeros(4, int)),
    ],
)
def test_what_does_not_belong_together_is_an_error(scores, t):
    with pytest.raises(TypeError, match="needed"):
        counted(scores, t)


def test_nan_is_not_right():
    scores = np.eye(3)
    assert n_right(scores, np.array([0, 1, 0])) == 2
    scores[1, 1] = np.nan
    assert np.isnan(n_right(scores, np.array([0, 1, 0])))


def test_the_ignored_label_is_that_of_the_accuracy_or_else_the_loss():
    def make(lossfun, accfun=F.accuracy):
        return ignored_by(L.Classifier(chainer.Sequential(), lossfun, accfun))

    def own(y, t):
        return F.mean_squared_error(y, t)

    def ignoring(function, label):
        return functools.partial(function, ignore_label=label)

    assert make(F.softmax_cross_entropy) == -1
    assert make(ignoring(F.softmax_cross_entropy, 255)) == 255
    assert make(own, ignoring(F.accuracy, 7)) == 7
    assert make(F.softmax_cross_entropy, ignoring(F.accuracy, 7)) == 7
    assert make(own) is None and make(own, None) is None


class Bias(chainer.Chain):
    def forward(self, x):
        return x + np.arange(3, dtype=x.dtype) / 10


def test_accuracies_leave_ignored_labels_out():
    x = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    t = np.array([0, -1, 2, 1, -1], np.int32)
    target = L.Classifier(Bias())

    def variants(x, t):
        yield "same", x
        yield "none", 0 * x  # the bias decides for class 2

    batches = [(x[:3], t[:3]), (x[3:], t[3:])]
    found = accuracies(target, batches, variants, "this")
    assert found == {"same": pytest.approx(2 / 3), "none": pytest.approx(1 / 3)}
    (value,) = {accuracies(target, [(x, t * 0 - 1)], variants, "")["same"]}
    assert np.isnan(value)
