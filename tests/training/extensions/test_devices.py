"""The evaluators on each device."""

import chainer.links as L
import numpy as np
import pytest

from chainer_mmix import ManifoldMixupClassifier, MixupSequential
from chainer_mmix.training.extensions import (
    CalibrationEvaluator,
    DecisionBoundaryPlot,
    DeformationEvaluator,
    FgsmEvaluator,
    RepresentationPlot,
    SingularValuePlot,
)


class Trainer:
    """All of a Trainer that they use."""

    def __init__(self, out):
        self.out = str(out)


@pytest.mark.parametrize(
    "device", ["@numpy", pytest.param("@cupy:0", marks=pytest.mark.gpu)]
)
@pytest.mark.parametrize("one_hot", [False, True])
def test_values_are_those_of_the_host(iterate, tmp_path, device, one_hot):
    np.random.seed(0)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((30, 1, 4, 4)).astype(np.float32)
    points = images[:, 0, 0, :2].copy()
    t = (points[:, 0] > points[:, 1]).astype(np.int32)
    labels = np.eye(2, dtype=np.float32)[t] if one_hot else t
    for x, cases in (
        (
            images,
            [
                (CalibrationEvaluator, []),
                (FgsmEvaluator, []),
                (DeformationEvaluator, []),
                (SingularValuePlot, ["0"]),  # a link
                (SingularValuePlot, [1]),  # a mixing point
                (RepresentationPlot, ["input"]),
            ],
        ),
        (points, [(DecisionBoundaryPlot, [])]),
    ):
        net = MixupSequential((L.Linear(x[0].size, 3), False), (L.Linear(3, 2), True))
        target = ManifoldMixupClassifier(net)
        for case, args in cases:
            target.to_device("@numpy")
            expected = case(iterate(x, labels), target, *args)(Trainer(tmp_path))
            target.to_device(device)
            evaluator = case(iterate(x, labels), target, *args, device=device)
            values = evaluator(Trainer(tmp_path))
            assert values == pytest.approx(expected, rel=1e-4)
