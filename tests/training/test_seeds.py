import random
import threading

import chainer
import numpy as np

from chainer_mmix.training import set_seed
from chainer_mmix.training.seeds import kept_random_state


def test_both_generators_are_seeded():
    device = chainer.get_device("@numpy")
    set_seed(5, device)
    assert random.random() == random.Random(5).random()
    assert np.random.rand() == np.random.RandomState(5).rand()


def test_what_is_drawn_on_the_side_leaves_no_trace():
    def draw():
        return random.random(), np.random.rand(), np.random.randn()

    set_seed(5, chainer.get_device("@numpy"))
    expected = draw()
    set_seed(5, chainer.get_device("@numpy"))
    try:
        with kept_random_state():
            assert draw() == expected
            raise KeyError
    except KeyError:
        pass
    assert draw() == expected


def test_what_another_thread_draws_meanwhile_is_not_drawn_again():
    running = threading.Event()
    # As the one of MultiprocessIterator is called.
    thread = threading.Thread(target=running.wait, name="prefetch_loop")
    thread.start()
    try:
        np.random.seed(0)
        with kept_random_state():
            np.random.rand()
        expected = np.random.RandomState(0).rand(2)[1]
        assert np.random.rand() == expected
    finally:
        running.set()
        thread.join()
