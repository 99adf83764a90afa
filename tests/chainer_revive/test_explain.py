import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.functions.activation.relu import ReLU

import chainer_revive
from chainer_revive.switches import use_what_the_environment_asks_for


@pytest.fixture(autouse=True)
def numpy_path():
    chainer_revive.use(cpu="numpy")
    yield
    use_what_the_environment_asks_for()


def found(explanation, method):
    return [
        (count, f.layer, f.arrays, f.reason)
        for f, count in explanation.fallbacks.items()
        if f.method == method
    ]


def test_why_calls_fall_back():
    x, W = np.ones((2, 3, 5, 5), "e"), np.ones((4, 3, 3, 3), "e")
    with chainer_revive.explaining() as explanation:
        for _ in range(3):
            F.convolution_2d(x, W)
    ((count, layer, arrays, reason),) = found(
        explanation, "Convolution2DFunction._forward_cpu_core"
    )
    assert (count, layer) == (3, "cpu")
    assert arrays == "float16 (2, 3, 5, 5), float16 (4, 3, 3, 3)"
    assert "of one dtype, float32 or float64" in reason
    assert f"3 x Convolution2DFunction._forward_cpu_core({arrays}), not cpu: " in str(
        explanation
    )


def test_each_reason_is_its_own():
    x = chainer.Variable(np.ones((2, 8, 5, 5), "f"))
    with chainer_revive.explaining() as explanation:
        F.convolution_2d(x, np.ones((8, 1, 3, 3), "f"), groups=8)
        y = F.convolution_2d(x, np.ones((4, 8, 3, 3), "f"))
        chainer.grad([y], [x], enable_double_backprop=True)
    ((_, _, _, reason),) = found(
        explanation, "Convolution2DFunction._forward_grouped_convolution"
    )
    assert "groups have fewer than 4 channels" in reason
    ((_, _, _, reason),) = found(explanation, "Convolution2DFunction.backward")
    assert "gradients of gradients" in reason


def test_what_is_fast_is_not_listed():
    x, link = np.ones((2, 8, 5, 5), "f"), L.Convolution2D(8, 4, 3)
    with chainer_revive.explaining() as explanation:
        link(x)
    assert str(explanation) == "nothing fell back to Chainer's own code"


def test_switched_off():
    chainer_revive.use(cpu="chainer")
    with chainer_revive.explaining() as explanation:
        pass
    assert "chainer_revive is switched off" in str(explanation)


def test_nothing_is_left_behind():
    before = F.relu(np.ones(3, "f")).array
    with pytest.raises(ZeroDivisionError), chainer_revive.explaining() as explanation:
        1 / 0  # noqa: B018
    F.relu(np.ones(3, "e"))
    assert not explanation.fallbacks and before.sum() == 3


def test_two_that_ask_at_once_are_both_told():
    # As two threads do, neither within the other.
    first, second = chainer_revive.explaining(), chainer_revive.explaining()
    before = ReLU.forward_cpu.__code__
    told = [first.__enter__(), second.__enter__()]
    F.relu(np.ones(3, "e"))
    first.__exit__(None, None, None)
    F.relu(np.ones(3, "e"))
    second.__exit__(None, None, None)
    F.relu(np.ones(3, "e"))
    counts = [sum(e.fallbacks.values()) for e in told]
    assert counts[1] == 2 * counts[0] > 0
    assert ReLU.forward_cpu.__code__ is before
