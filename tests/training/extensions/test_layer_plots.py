import sys

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.training.extensions import plot_report
from matplotlib import image

from chainer_mmix.analysis.singular_values import singular_values, spread
from chainer_mmix.training.extensions import RepresentationPlot, SingularValuePlot


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((45, 4)).astype(np.float32)
    return x, np.arange(45, dtype=np.int32) % 3


class Net(chainer.Chain):
    """A network that knows nothing of mixing."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.body = chainer.Sequential(L.Linear(None, 6))
            self.bn = L.BatchNormalization(6)
            self.fc = L.Linear(6, 3)

    def forward(self, x):
        return self.fc(F.relu(self.bn(self.body(x))))


@pytest.fixture
def target():
    return L.Classifier(Net())


class Trainer:
    """All of a Trainer that they use."""

    def __init__(self, out):
        self.out = str(out)


@pytest.mark.parametrize("one_hot", [False, True])
def test_the_spread_is_that_of_all_examples(target, data, iterate, tmp_path, one_hot):
    x, t = data
    labels = np.eye(3, dtype=np.float32)[t] if one_hot else t
    plot = SingularValuePlot(iterate(x, labels), target, "bn")
    with chainer.using_config("train", False):
        states = target.predictor.bn(target.predictor.body(x)).array
    expected = spread(singular_values(states, t))
    assert plot(Trainer(tmp_path)) == {"main/spread/bn": pytest.approx(expected)}
    picture = image.imread(tmp_path / "singular_values_bn.png")
    assert picture.shape[1] > picture.shape[0] > 300


@pytest.mark.parametrize("method", ["none", "pca", "tsne"])
def test_representations_are_drawn(target, data, iterate, tmp_path, method):
    x = data[0][:, :2] if method == "none" else data[0]
    iterator = iterate(x, data[1])
    plot = RepresentationPlot(iterator, target, "input", method=method)
    assert plot(Trainer(tmp_path)) == {}
    picture = image.imread(tmp_path / "representation_input.png")
    legend = picture[:120, -60:, :3]  # the points are translucent
    for color in ((0, 0, 0), (0.90, 0.62, 0), (0.34, 0.71, 0.91)):
        assert (np.abs(legend - color).max(axis=-1) < 0.02).sum() > 10


def test_names_of_files(target, data, iterate, tmp_path):
    RepresentationPlot(iterate(*data), target, "body/0")(Trainer(tmp_path))
    SingularValuePlot(iterate(*data), target, "fc", filename="s.png")(Trainer(tmp_path))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"representation_body-0.png", "s.png"}


@pytest.mark.parametrize("plot", [RepresentationPlot, SingularValuePlot])
def test_an_unknown_layer_is_an_error_before_the_training(target, data, iterate, plot):
    with pytest.raises(ValueError, match="Net has no link 'f'"):
        plot(iterate(*data), target, "f")


def test_an_unknown_method_is_an_error_before_the_training(target, data, iterate):
    with pytest.raises(ValueError, match="'umap'"):
        RepresentationPlot(iterate(*data), target, "fc", method="umap")


def test_without_matplotlib_they_warn_and_report(
    target, data, iterate, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(plot_report, "_available", None)
    for plot in (RepresentationPlot, SingularValuePlot):
        extension = plot(iterate(*data), target, "fc")
        with pytest.warns(UserWarning, match="matplotlib is not installed"):
            values = extension(Trainer(tmp_path))
        assert set(values) <= {"main/spread/fc"}
    assert set(values) == {"main/spread/fc"}
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_states_that_are_not_finite_have_no_picture(
    target, data, iterate, tmp_path, value
):
    x, t = data
    x[3] = value
    for plot in (RepresentationPlot, SingularValuePlot):
        extension = plot(iterate(x, t), target, "input")
        with pytest.warns(UserWarning, match="'input' are NaN or infinite"):
            values = extension(Trainer(tmp_path))
    assert np.isnan(values.pop("main/spread/input")) and not values
    assert not any(tmp_path.iterdir())
