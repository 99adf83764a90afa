import chainer
import numpy as np
import pytest

from chainer_mmix import MixupPolicy, mixup_data
from chainer_mmix.mixing import mixup_accuracy, mixup_softmax_cross_entropy
from chainer_mmix.mixing.draw import MixupDraw, using_draw
from chainer_mmix.mixing.weights import DeviceWeights

N = 7
rng = np.random.RandomState(0)
T = rng.randint(0, 3, N).astype("i")


def results(x, draw):
    x = chainer.Variable(x)
    with using_draw(draw):
        y, a, b = mixup_data(x, T, draw.lam)
    loss = mixup_softmax_cross_entropy(y, a, b, draw.lam)
    accuracy = mixup_accuracy(y, a, b, draw.lam)
    loss.backward()
    return [v.array for v in (y, loss, accuracy)] + [x.grad, b]


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
@pytest.mark.parametrize("dtype", ["e", "f", "d"])
def test_weights_that_are_filled_again_give_the_same_to_the_bit(per, dtype):
    policy = MixupPolicy(1.0, per=per, seed=0)
    weights = DeviceWeights(N, chainer.get_device("@numpy"))
    for _ in range(3):
        x = rng.standard_normal((N, 3)).astype(dtype)
        draw = policy.draw(N)
        weights.fill(draw.lam, draw.perm)
        assert weights.mean == np.mean(draw.lam)
        static = MixupDraw(None, weights, weights.perm)
        for own, wanted in zip(results(x, static), results(x, draw), strict=True):
            assert own.dtype == wanted.dtype
            np.testing.assert_array_equal(own, wanted)


def test_another_permutation_is_refused():
    weights = DeviceWeights(N, chainer.get_device("@numpy"))
    x = np.zeros((N, 3), "f")
    with pytest.raises(TypeError):
        mixup_data(x, T, weights, np.arange(N))
