import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from chainer_mmix.analysis.calibration import (
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    pool,
    reliability,
)


@pytest.fixture
def example():
    rng = np.random.default_rng(0)
    scores = (3 * rng.standard_normal((200, 4))).astype(np.float32)
    return scores, rng.integers(0, 4, 200).astype(np.int32)


def test_likelihood_and_brier_score_are_those_of_scikit_learn(example):
    scores, t = example
    probability = softmax(scores.astype(np.float64), axis=1)
    expected = log_loss(t, probability)
    assert negative_log_likelihood(scores, t) == pytest.approx(expected, rel=1e-12)
    expected = brier_score_loss(t, probability, scale_by_half=False)
    assert brier_score(scores, t) == pytest.approx(expected, rel=1e-12)


def test_the_likelihood_of_an_impossible_label_is_finite():
    assert negative_log_likelihood(np.array([[2000.0, 0]]), np.array([1])) == 2000


@pytest.mark.parametrize("n_bins", [1, 7, 15])
def test_calibration_error_by_its_definition(example, n_bins):
    scores, t = example
    p = softmax(scores.astype(np.float64), axis=1)
    expected = 0
    for m in range(n_bins):
        inside = (p.max(1) > m / n_bins) & (p.max(1) <= (m + 1) / n_bins)
        if inside.any():
            accuracy = (p.argmax(1) == t)[inside].mean()
            expected += inside.mean() * abs(accuracy - p.max(1)[inside].mean())
    assert expected > 0.01
    error = expected_calibration_error(scores, t, n_bins)
    assert error == pytest.approx(expected, rel=1e-12)


def test_a_table_by_hand():
    probability = np.array([[0.75, 0.25], [0.65, 0.35], [0.1, 0.9], [0.0, 1.0]])
    with np.errstate(divide="ignore"):
        scores = np.log(probability)
    t = np.array([0, 1, 1, 1])
    table = reliability(scores, t, 4)
    np.testing.assert_array_equal(table.edges, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(table.count, [0, 0, 2, 2])
    np.testing.assert_allclose(table.confidence, [np.nan, np.nan, 0.7, 0.95])
    np.testing.assert_allclose(table.accuracy, [np.nan, np.nan, 0.5, 1])
    error = expected_calibration_error(scores, t, 4)
    assert error == pytest.approx((0.2 + 0.05) / 2)
    expected = 2 * np.mean([0.25**2, 0.65**2, 0.1**2, 0])
    assert brier_score(scores, t) == pytest.approx(expected)


def test_a_bin_has_its_upper_border():
    table = reliability(np.zeros((3, 2)), np.array([0, 0, 1]), 4)
    np.testing.assert_array_equal(table.count, [0, 3, 0, 0])


def test_a_classifier_that_knows_its_accuracy_has_no_error():
    t = np.repeat([0, 1], [70, 30])
    scores = np.log(np.tile([0.7, 0.3], (100, 1)))
    assert expected_calibration_error(scores, t) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(-scores, t) == pytest.approx(0.4)


def test_pooled_bins_are_those_of_all_predictions():
    rng = np.random.default_rng(0)
    parts = [
        (scale * rng.standard_normal((n, 3)), rng.integers(0, 3, n))
        for n, scale in ((5, 0.1), (40, 1), (20, 4))
    ]
    pooled = pool([reliability(scores, t, 8) for scores, t in parts])
    scores, t = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    for found, expected in zip(pooled, reliability(scores, t, 8), strict=True):
        np.testing.assert_allclose(found, expected)
    assert (pooled.count == 0).any()
    tables = [reliability(scores, t, n) for n in (8, 9)]
    with pytest.raises(ValueError, match="different bins"):
        pool(tables)


MEASURES = [expected_calibration_error, negative_log_likelihood, brier_score]


@pytest.mark.parametrize("measure", MEASURES)
def test_nan_gives_nan(measure):
    scores = np.random.default_rng(0).standard_normal((9, 3))
    t = np.arange(9) % 3
    assert np.isfinite(measure(scores, t))
    scores[4] = np.nan
    assert np.isnan(measure(scores, t))
    assert np.isnan(measure(scores[:0], t[:0]))


@pytest.mark.parametrize("measure", [*MEASURES, reliability])
@pytest.mark.parametrize("label", [-1, 3, 255])
def test_a_label_out_of_range_is_an_error(measure, label):
    with pytest.raises(ValueError, match=rf"\[0, 3\).*found {label}"):
        measure(np.zeros((4, 3)), np.array([0, 1, label, 2]))


@pytest.mark.parametrize("measure", [*MEASURES, reliability])
@pytest.mark.parametrize("shape", [(4, 1), (4,)])
def test_one_logit_is_an_error(measure, shape):
    with pytest.raises(TypeError, match="one score a class"):
        measure(np.zeros(shape), np.zeros(4, int))


def test_nan_in_a_full_bin_of_a_pool_stays():
    t = np.array([0, 1])
    good = reliability(np.array([[1.0, 0], [2.0, 0]]), t)
    bad = reliability(np.full((2, 2), np.nan), t)
    assert np.isnan(pool([good, bad]).confidence[-1])
    assert np.isfinite(pool([good, good]).confidence[good.count > 0]).all()


def test_nan_is_neither_right_nor_wrong():
    scores = np.array([[np.nan, 0], [np.inf, np.inf], [0, 2], [0, 0.1]])
    table = reliability(scores, np.array([0, 0, 1, 1]), 4)
    np.testing.assert_array_equal(table.count, [0, 0, 1, 3])
    np.testing.assert_array_equal(table.accuracy, [np.nan, np.nan, 1, np.nan])
    np.testing.assert_array_equal(np.isnan(table.confidence), [1, 1, 0, 1])


def test_the_prediction_is_that_of_the_scores_where_probabilities_are_equal():
    scores = np.array([[0, 1e-20], [1e-20, 0]], np.float32)
    table = reliability(scores, np.array([1, 0]))
    assert np.nanmax(table.accuracy) == 1
    assert expected_calibration_error(scores, np.array([1, 0])) == 0.5
