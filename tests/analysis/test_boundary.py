import warnings

import chainer
import chainer.links as L
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg

from chainer_mmix.analysis.boundary import (
    ConfidenceMap,
    confidence_map,
    plot_boundary,
    unsure_share,
)

W = np.array([[2.0, -1.0], [0.5, 0.5]])
B = np.array([0.3, 0.0])


@pytest.fixture
def net():
    return L.Linear(2, 2, initialW=W, initial_bias=B)


@pytest.fixture
def points():
    return np.array([[0, -1], [1, 1], [0.5, 0]], np.float32)


def test_the_map_of_a_linear_model(net, points):
    found = confidence_map(net, points, 7)
    np.testing.assert_allclose(found.x, np.linspace(-0.2, 1.2, 7), rtol=1e-6)
    np.testing.assert_allclose(found.y, np.linspace(-1.4, 1.4, 7), atol=1e-6)
    for i, y in enumerate(found.y):
        for j, x in enumerate(found.x):
            a, b = W @ [x, y] + B
            expected = 1 / (1 + np.exp(b - a))
            assert found.probability[i, j] == pytest.approx(expected, rel=1e-5)


def test_a_map_of_many_points_is_that_of_few(net, points):
    fine = confidence_map(net, points, 201).probability  # in several chunks
    coarse = confidence_map(net, points, 41).probability
    np.testing.assert_allclose(fine[::5, ::5], coarse, rtol=1e-5)


def test_the_axes_of_a_map_are_exact_in_half_precision(points):
    with chainer.using_config("dtype", np.float16):
        net = L.Linear(2, 2, initialW=W, initial_bias=B)
    points = np.float16(points) + np.float16(1000)
    found = confidence_map(net, points, 7)
    np.testing.assert_allclose(found.x, np.linspace(999.8, 1001.2, 7))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_a_map_between_whole_numbers_is_an_error(net, dtype):
    with pytest.raises(TypeError, match=f"dtype {np.dtype(dtype)}, .* float32"):
        confidence_map(net, np.array([[0, 0], [1, 2]], dtype))


def test_unsure_share():
    probability = np.array([[0.95, 0.89], [0.1, 0.5], [0.11, 0.05], [0.9, 1]])
    assert unsure_share(probability) == 3 / 8
    assert unsure_share(probability, 0.6) == 1 / 8


def test_colours_are_yellow_green_and_purple(points):
    p = np.linspace(1, 0, 101)[None].repeat(101, axis=0)
    axis = np.linspace(-2, 2, 101)
    figure = plot_boundary(ConfidenceMap(axis, axis, p), points, np.array([0, 1, 1]))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[::-1] / 255
    axes, bar = figure.axes
    box = axes.get_window_extent()
    row = round(box.y0 + 0.05 * box.height)
    for share, expected in ((0.02, (0.99, 0.9, 0.14)), (0.98, (0.27, 0, 0.33))):
        pixel = picture[row, round(box.x0 + share * box.width), :3]
        np.testing.assert_allclose(pixel, expected, atol=0.06)
    r, g, b, _ = colormaps["viridis"](0.55)  # beside the line
    assert g > max(r, b)
    pixel = picture[row, round(box.x0 + 0.45 * box.width), :3]
    np.testing.assert_allclose(pixel, (r, g, b), atol=0.06)
    assert "probability of class 0" in bar.get_ylabel()


def test_points_and_legend(net, points):
    found = confidence_map(net, points, 20)
    figure = plot_boundary(found, points, np.array([0, 1, 1]), "a title")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    drawn = {c.get_label(): c.get_offsets() for c in axes.collections}
    np.testing.assert_array_equal(drawn["class 0"], points[:1])
    np.testing.assert_array_equal(drawn["class 1"], points[1:])
    (legend,) = figure.legends
    assert not legend.get_window_extent().overlaps(axes.get_tightbbox())
    share = f"{unsure_share(found.probability):.1%}"
    assert axes.get_title().startswith("a title\n" + share)


def test_a_network_that_is_sure_everywhere_gives_no_warning(points):
    net = L.Linear(2, 2, initialW=0, initial_bias=np.array([5, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_boundary(confidence_map(net, points, 9), points, np.array([0, 1, 1]))


def test_what_cannot_be_drawn_is_an_error(net, points):
    with pytest.raises(ValueError, match=r"shape \(N, 2\), not \(3, 4\)"):
        confidence_map(L.Linear(4, 2), np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match=r"Linear gives scores of shape \(100, 3\)"):
        confidence_map(L.Linear(2, 3), points, 10)
