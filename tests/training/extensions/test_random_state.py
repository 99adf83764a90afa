import random

import numpy as np
import pytest
from chainer.serializers import DictionarySerializer, NpzDeserializer

from chainer_mmix.training.extensions import RandomState


def draw():
    return (
        np.random.rand(3).tolist(),
        np.random.randn(),
        np.random.permutation(9).tolist(),
        random.random(),
        random.gauss(0, 1),
    )


@pytest.mark.parametrize("ahead", [False, True])
def test_state_is_restored(ahead):
    random.seed(1)
    np.random.seed(1)
    if ahead:  # both generators draw pairs of normal numbers and keep the second
        np.random.randn()
        random.gauss(0, 1)
    serializer = DictionarySerializer()
    RandomState().serialize(serializer)
    expected = draw()
    assert draw() != expected

    for value in serializer.target.values():
        assert np.asarray(value).dtype != object
    RandomState().serialize(
        NpzDeserializer(
            {key: np.asarray(value) for key, value in serializer.target.items()}
        )
    )
    assert draw() == expected
