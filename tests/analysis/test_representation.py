import numpy as np
import pytest
from matplotlib.colors import to_rgb

from chainer_mmix.analysis.representation import plot_points, project


@pytest.fixture
def clusters():
    rng = np.random.default_rng(0)
    t = np.repeat([0, 1, 2], 20)
    centres = 20 * rng.standard_normal((3, 6))
    return (centres[t] + rng.standard_normal((60, 6))).astype(np.float32), t


def test_two_dimensions_stay_as_they_are(clusters):
    h = clusters[0][:, :2]
    points, names = project(h, "none")
    np.testing.assert_array_equal(points, h)
    assert names == ("unit 0", "unit 1")
    with pytest.raises(ValueError, match="6 dimensions"):
        project(clusters[0], "none")


def test_principal_components_are_those_of_the_covariance(clusters):
    h = clusters[0].astype(np.float64)
    points, names = project(h, "pca")
    variances, vectors = np.linalg.eigh(np.cov(h.T))
    expected = (h - h.mean(axis=0)) @ vectors[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)
    share = variances[-1] / variances.sum()
    assert names[0] == f"principal component 1 ({share:.0%} of the variance)"


@pytest.mark.parametrize("n", [60, 5])
def test_tsne_keeps_neighbours_and_random_state(clusters, n):
    h, t = (a[:: 60 // n][:n] for a in clusters)
    state = np.random.get_state()
    points, _ = project(h, "tsne")
    assert np.random.get_state()[2] == state[2]
    assert points.shape == (n, 2) and np.isfinite(points).all()
    np.testing.assert_array_equal(points, project(h, "tsne")[0])
    if n == 60:
        distance = np.linalg.norm(points[:, None] - points, axis=-1)
        np.fill_diagonal(distance, np.inf)
        assert (t[distance.argmin(axis=1)] == t).mean() > 0.95


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize("n", [0, 1])
def test_a_single_state_is_at_the_origin(method, n):
    points, names = project(np.ones((n, 5), np.float32), method)
    np.testing.assert_array_equal(points, np.zeros((n, 2)))
    figure = plot_points(points, np.zeros(n, int), names, "title")
    figure.draw_without_rendering()


def test_an_unknown_method_is_an_error(clusters):
    with pytest.raises(ValueError, match="none, pca, tsne, not 'umap'"):
        project(clusters[0], "umap")


@pytest.mark.parametrize("n_class", [3, 100])
def test_classes_differ_in_the_picture_and_its_legend(n_class):
    points = np.random.default_rng(0).random((2 * n_class, 2))
    t = np.arange(2 * n_class) % n_class
    figure = plot_points(points, t, ("a", "b"), "title")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a", "b")
    for label, drawn in enumerate(axes.collections):
        np.testing.assert_array_equal(drawn.get_offsets(), points[t == label])
    styles = {
        (tuple(drawn.get_facecolor()[0]), drawn.get_paths()[0].vertices.tobytes())
        for drawn in axes.collections
    }
    assert len(styles) == min(n_class, 70)
    # The number of a class is amid its points, where there are few classes.
    numbers = {int(n.get_text()): n.get_position() for n in axes.texts}
    assert list(numbers) == ([0, 1, 2] if n_class == 3 else [])
    for label, position in numbers.items():
        np.testing.assert_allclose(position, np.median(points[t == label], axis=0))
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert not box.overlaps(axes.get_tightbbox())
    assert box.y0 >= 0 and box.x1 <= figure.bbox.x1
    for label, handle in enumerate(legend.legend_handles):
        color = axes.collections[label].get_facecolor()[0]
        np.testing.assert_allclose(to_rgb(handle.get_color()), color[:3])
    assert axes.get_position().width > 0.5
