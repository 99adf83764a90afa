import random

import chainer
import numpy as np

from chainer_mmix.training import set_seed


def test_both_generators_are_seeded():
    device = chainer.get_device("@numpy")
    set_seed(5, device)
    assert random.random() == random.Random(5).random()
    assert np.random.rand() == np.random.RandomState(5).rand()
