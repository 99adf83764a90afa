import chainer.links as L
import numpy as np
import pytest
from matplotlib import image

from chainer_mmix.training.extensions import DecisionBoundaryPlot


class Trainer:
    """All of a Trainer that it uses."""

    def __init__(self, out):
        self.out = str(out)


def test_picture_and_share_of_a_linear_model(iterate, tmp_path):
    x = np.random.default_rng(0).uniform(-1, 1, (25, 2)).astype(np.float32)
    x[:2] = [[-1, -1], [1, 1]]
    t = (x[:, 0] < 0).astype(np.int32)
    # The probability of class 0 is 0.9 at 0.55, within a map of -1.4 to 1.4.
    net = L.Linear(2, 2, initialW=np.array([[4, 0], [0, 0]]))
    plot = DecisionBoundaryPlot(iterate(x, t), L.Classifier(net), resolution=300)
    share = 2 * np.log(9) / 4 / 2.8
    assert plot(Trainer(tmp_path)) == {"main/unsure": pytest.approx(share, abs=0.01)}
    picture = image.imread(tmp_path / "decision_boundary.png")
    height, width, _ = picture.shape
    left, right = picture[height // 2, width // 5], picture[height // 2, width * 4 // 5]
    assert left[2] > left[1] and right[1] > right[2]  # purple and yellow


@pytest.mark.parametrize("label", [-2, 2])
def test_a_third_class_is_an_error(iterate, label):
    x = np.zeros((4, 2), np.float32)
    t = np.array([0, 1, -1, label], np.int32)  # the loss ignores -1
    plot = DecisionBoundaryPlot(iterate(x, t), L.Classifier(L.Linear(2, 2)))
    with pytest.raises(ValueError, match=f"there are labels {label}"):
        plot()
