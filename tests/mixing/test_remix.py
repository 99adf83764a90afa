import numpy as np
import pytest

from chainer_mmix.mixing import Remix

COUNTS = np.array([100, 30, 90, 5])


def label_weight(lam, a, b, kappa, tau):
    """The cases of the paper, for one pair."""
    ratio = COUNTS[a] / COUNTS[b]
    if ratio >= kappa and lam < tau:
        return 0
    if ratio <= 1 / kappa and 1 - lam < tau:
        return 1
    return lam


@pytest.mark.parametrize("n", [1, 40])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize(("kappa", "tau"), [(3, 0.5), (1, 0.8), (10, 0.3), (3, 0)])
def test_the_cases_of_the_paper(n, per_sample, kappa, tau):
    rng = np.random.RandomState(0)
    for _ in range(10):
        a, b = rng.randint(0, 4, (2, n)).astype("i")
        lam = rng.rand(n) if per_sample else rng.rand()
        weights = Remix(COUNTS, kappa, tau).weights(lam, a, b)
        expected = [
            label_weight(*row, kappa, tau)
            for row in zip(np.broadcast_to(lam, n), a, b, strict=True)
        ]
        np.testing.assert_allclose(weights.first, expected)
        np.testing.assert_allclose(weights.second, 1 - np.array(expected))


def test_a_label_to_be_ignored_keeps_the_weight_of_its_sample():
    a, b = np.array([0, -1, 255], "i"), np.array([-1, 3, 3], "i")
    np.testing.assert_array_equal(Remix(COUNTS).weights(0.2, a, b).first, 0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1, 2]],), "class_counts must be"),
        (([1, -2],), "class_counts must be"),
        ((COUNTS, 0.5), "kappa must be a finite number >= 1, not 0.5"),
        ((COUNTS, 3, 1.5), r"tau must lie in \[0, 1\], not 1.5"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Remix(*arguments)


@pytest.mark.parametrize("t", [np.eye(4, dtype="f"), np.zeros((2, 3, 3), "i")])
def test_other_targets_than_labels(t):
    with pytest.raises(TypeError, match="one class label a sample"):
        Remix(COUNTS).weights(0.5, t, t)
