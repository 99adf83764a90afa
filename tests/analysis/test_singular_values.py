import numpy as np
import pytest

from chainer_mmix.analysis.singular_values import (
    plot_singular_values,
    singular_values,
    spread,
)


@pytest.fixture
def states():
    rng = np.random.default_rng(0)
    return rng.standard_normal((60, 5)).astype(np.float32) + 2, np.repeat([3, 7], 30)


def test_values_are_roots_of_the_mean_of_outer_products(states):
    h, t = states
    values = singular_values(h, t)
    assert list(values) == [3, 7]
    for label, own in values.items():
        of_class = h[t == label].astype(np.float64)
        moments = np.mean([np.outer(row, row) for row in of_class], axis=0)
        np.testing.assert_allclose(own**2, np.linalg.eigvalsh(moments)[::-1])


def test_a_class_in_one_direction_does_not_spread():
    h = np.outer([1, 2, -3, 4], [1, 2, 2]).astype(np.float32)
    values = singular_values(h, np.zeros(4, int))
    assert values[0][0] == pytest.approx(3 * np.sqrt(30 / 4))
    assert spread(values) == pytest.approx(0, abs=1e-6)


def test_spread_is_the_mean_over_the_classes():
    values = {0: np.array([9.0, 3, 1]), 1: np.array([5.0, 2])}
    assert spread(values) == pytest.approx((4 + 2) / 2)


def test_the_picture_has_a_line_a_class(states):
    h, t = states
    values = singular_values(np.append(h, 0 * h[:, :1], axis=1), t)
    figure = plot_singular_values(values, "Hidden states")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    for line, own in zip(axes.lines, values.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4, 5, 6])
        np.testing.assert_array_equal(line.get_ydata()[:5], own[:5])
        assert line.get_ydata()[5] == pytest.approx(axes.dataLim.y0)  # not at zero
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["3", "7"]
    assert not legend.get_window_extent().overlaps(axes.get_tightbbox())
    assert f"{spread(values):.3g}" in axes.get_title()


def test_a_picture_of_no_class_is_empty():
    figure = plot_singular_values(singular_values(np.zeros((0, 5)), np.zeros(0, int)))
    figure.draw_without_rendering()
    assert not figure.axes[0].lines
