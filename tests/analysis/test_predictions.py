import numpy as np
import pytest

from chainer_mmix.analysis.predictions import labels_of


def test_labels_and_those_of_probabilities():
    t = np.array([2, 0, 1], np.int32)
    np.testing.assert_array_equal(labels_of(t), t)
    soft = np.array([[0.1, 0.2, 0.7], [0.6, 0.4, 0], [0.3, 0.4, 0.3]], np.float32)
    np.testing.assert_array_equal(labels_of(soft), t)


@pytest.mark.parametrize(
    "t", [np.zeros(3, np.float32), np.zeros((3, 2), np.int32), np.zeros(3, bool)]
)
def test_other_targets_are_an_error(t):
    with pytest.raises(TypeError, match=f"{t.dtype} and shape"):
        labels_of(t)
