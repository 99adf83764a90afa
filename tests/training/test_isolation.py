import threading

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix.training.isolation import isolated, isolated_with_weights


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        self.seen = [0]
        self.lock = threading.Lock()
        with self.init_scope():
            self.lstm = L.LSTM(3, 4)
            self.bn = L.BatchNormalization(4)
            self.fc = L.Linear(None, 2)
        self.again = [self.fc]
        self.call = self.fc.forward

    def forward(self, x):
        self.seen.append(len(x))
        self.seen[0] += 1
        return self.call(self.bn(self.lstm(x)))


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


def test_what_a_call_changes_is_undone(x):
    net = Net()
    loss = F.sum(net(x))
    h, mean = net.lstm.h, net.bn.avg_mean
    values = mean.copy()
    with isolated(net):
        assert net.lstm.h is None and net.seen == [1, 5]
        net(x[:2])  # in training mode
        net(np.tile(x, (2, 1))[:2])
        assert net.seen == [3, 5, 2, 2] and net.lstm.h.shape == (2, 4)
    assert net.lstm.h is h and net.seen == [1, 5]
    assert net.bn.avg_mean is mean
    np.testing.assert_array_equal(mean, values)
    # The graph of the next steps is the one of the steps before.
    loss = loss + F.sum(net(x))
    net.cleargrads()
    loss.backward()
    assert h.creator is not None and np.abs(net.lstm.lateral.W.grad).max() > 0


def test_an_error_undoes_it_too(x):
    net = Net()
    with pytest.raises(KeyError), isolated(net):
        net(x)
        raise KeyError
    assert net.seen == [0] and net.lstm.h is None


def test_parameters_stay_and_are_initialised(x):
    net = Net()
    params = list(net.params())
    with isolated(net):
        y = net(x)
    assert [id(p) for p in net.params()] == [id(p) for p in params]
    assert net.fc.W.is_initialized
    with isolated(net):
        np.testing.assert_array_equal(net(x).array, y.array)


def test_zeros_stand_for_parameters_without_a_shape(x):
    net = Net()
    before = np.random.get_state()[1:3]
    with isolated_with_weights(net):
        assert net(x).shape == (5, 2)
        assert net.fc.W.dtype == np.float32 and not net.fc.W.array.any()
    np.testing.assert_equal(np.random.get_state()[1:3], before)
    assert not net.fc.W.is_initialized


def test_what_cannot_be_copied_is_shared():
    net = Net()
    lock = net.lock
    with isolated(net):
        assert net.lock is lock
