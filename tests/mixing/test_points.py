import numpy as np
import pytest

from chainer_mmix.mixing.points import as_points, resolve

NAMES, NUMBERS = ("input", "l1", "l2"), (0, 2, 4)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (3, (3,)),
        ("l1", ("l1",)),
        ([0, "l1"], (0, "l1")),
        (np.arange(2), (0, 1)),
    ],
)
def test_points_come_alone_or_as_a_sequence(given, expected):
    assert as_points(given) == expected
    assert all(type(point) in (int, str) for point in as_points(given) or ())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "layer_mix is empty"),
        (1.5, TypeError, "an integer or a name, not 1.5"),
        ([0, None], TypeError, "an integer or a name, not None"),
    ],
)
def test_what_is_no_point(given, error, message):
    with pytest.raises(error, match=message):
        as_points(given)


@pytest.mark.parametrize(
    ("given", "points", "expected"),
    [
        ("l1", NAMES, "l1"),
        (1, NAMES, "l1"),
        (np.int64(2), NAMES, "l2"),
        (2, NUMBERS, 2),
    ],
)
def test_a_point_by_its_name_or_the_index_of_its_name(given, points, expected):
    assert resolve(given, points, None) == expected


@pytest.mark.parametrize(
    ("given", "points", "message"),
    [
        ("l3", NAMES, "dict has no mixing point 'l3'; it has 'input', 'l1', 'l2'"),
        (3, NAMES, "no mixing point 3; "),
        (-1, NAMES, "no mixing point -1; "),
        (1, NUMBERS, "no mixing point 1; it has 0, 2, 4"),
        (None, (), "no mixing point None; it has none"),
    ],
)
def test_an_unknown_point(given, points, message):
    with pytest.raises(ValueError, match=message):
        resolve(given, points, {})


@pytest.mark.parametrize("default", [None, (0, 4)])
def test_a_point_is_drawn_evenly_from_numpy_random(default):
    np.random.seed(0)
    drawn = [resolve(None, NUMBERS, None, default) for _ in range(600)]
    chosen = default or NUMBERS
    counts = [drawn.count(point) for point in chosen]
    assert sum(counts) == 600
    # Five standard deviations of a binomial distribution.
    p = 1 / len(chosen)
    np.testing.assert_allclose(counts, 600 * p, atol=5 * np.sqrt(600 * p * (1 - p)))
    np.random.seed(0)
    assert drawn == [resolve(None, NUMBERS, None, default) for _ in range(600)]
