"""What is recorded outside of training, and done again with other numbers."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

import chainer_revive
from chainer_revive.cpu.graphs import CpuGraphs

pytest.importorskip("numba")


@pytest.fixture(autouse=True)
def compiled_loops():
    before = chainer_revive.state()["cpu"]
    chainer_revive.use(cpu="numba")
    yield
    chainer_revive.use(cpu=before)


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(3, 16, 3, pad=1)
            self.norm = L.BatchNormalization(16, eps=1e-3)
            self.first = L.BatchNormalization(3)

    def forward(self, x):
        return F.relu(self.norm(self.conv(self.first(x))))


def shake(net, random):
    for link in (net.norm, net.first):
        for array in (link.gamma.array, link.beta.array, link.avg_mean):
            array[:] = random.standard_normal(array.shape)
        link.avg_var[:] = random.uniform(0.1, 3, link.avg_var.shape)


def test_an_evaluation_is_done_again_with_other_statistics():
    random = np.random.RandomState(0)
    net, x = Net(), random.standard_normal((4, 3, 8, 8)).astype("f")
    graphs = CpuGraphs(lambda every=False: [net])
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        replay = graphs.capture(lambda: net(x).array, [x])
        for _ in range(4):
            shake(net, random)
            x[:] = random.standard_normal(x.shape)
            assert replay().tobytes() == net(x).array.tobytes()
