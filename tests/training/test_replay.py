import random
import threading

import numpy as np
import pytest

from chainer_mmix.training.replay import capture
from chainer_revive.cpu.steps import CannotReplayError


def draw():
    return np.random.rand(), random.random()


class Graphs:
    """Captures nothing, but something is done meanwhile."""

    def __init__(self, *meanwhile):
        self.meanwhile = list(meanwhile)

    def capture(self, compute, inputs):
        if self.meanwhile:
            self.meanwhile.pop(0)()
        compute()
        return compute


def test_what_another_thread_draws_is_left_alone():
    drawn = []

    def another():
        thread = threading.Thread(target=lambda: drawn.append(draw()))
        thread.start()
        thread.join()

    compute = drawn.copy
    assert capture(Graphs(another), compute, []) is compute
    assert drawn[0] != draw()


def fail():
    draw()
    raise OSError


@pytest.mark.parametrize("compute", [draw, fail])
def test_what_a_step_draws_is_drawn_again(compute):
    np.random.seed(0)
    random.seed(0)
    with pytest.raises(CannotReplayError, match=r"draws random|OSError"):
        capture(Graphs(), compute, [])
    found = draw()
    np.random.seed(0)
    random.seed(0)
    assert found == draw()


class Drawing:
    def __init__(self):
        self.generators = [np.random.default_rng(0), random.Random(0)]

    def __call__(self):
        return [generator.random() for generator in self.generators]


def test_generators_that_roots_reach_are_put_back_and_others_left_alone():
    own, other = Drawing(), Drawing()
    with pytest.raises(CannotReplayError, match="draws random"):
        capture(Graphs(other, other, other), own, [], [own])
    fresh = Drawing()
    assert own() == fresh()
    fresh(), fresh()
    assert other() == fresh()
