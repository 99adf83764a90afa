import chainer
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix.analysis.deform import deform
from chainer_mmix.training.extensions import DeformationEvaluator


class Where(chainer.Chain):
    """Scores where an image is brightest: at the top, the middle or the bottom."""

    def forward(self, x):
        rows = x[:, 0, :, 3]
        return np.stack(
            [rows[:, :2].sum(1), rows[:, 2:5].sum(1), rows[:, 5:].sum(1)], 1
        )


@pytest.fixture
def data():
    # A dot above the centre, whose column it leaves when the image is turned.
    x = np.zeros((24, 1, 7, 7), np.float32)
    x[:, :, 1, 3] = 1
    return x, np.zeros(24, np.int32)


def test_accuracies_are_those_of_deformed_images(data, iterate):
    x, t = data
    kinds = [("rotation", 180), ("zoom", 0.5), ("zoom", 2), ("shear", 20)]
    target = L.Classifier(Where())
    evaluator = DeformationEvaluator(iterate(x, t), target, deformations=kinds, seed=4)
    values = evaluator()
    for kind, amount in kinds:
        deformed = deform(x, kind, amount, np.random.default_rng(4))
        expected = (target.predictor(deformed).argmax(axis=1) == 0).mean()
        assert values.pop(f"main/deformed_accuracy/{kind}_{amount}") == expected
        if kind == "rotation":
            assert 0.2 < expected < 0.9
    assert not values
    assert evaluator() == evaluator()


def test_zooming_out_moves_the_dot_to_the_middle(data, iterate):
    x, t = data
    evaluator = DeformationEvaluator(
        iterate(x, t + 1), L.Classifier(Where()), deformations=[("zoom", 2)]
    )
    # At half the size, the dot is one pixel above the centre.
    assert evaluator() == {"main/deformed_accuracy/zoom_2": 1}


def test_an_unknown_kind_is_an_error_before_the_training(data, iterate):
    with pytest.raises(ValueError, match="'twist'"):
        DeformationEvaluator(
            iterate(*data), L.Classifier(Where()), deformations=[("twist", 1)]
        )
