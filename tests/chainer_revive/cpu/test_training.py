import threading

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.iterators import MultiprocessIterator
from threadpoolctl import threadpool_limits

from chainer_mmix.models import CNN

pytestmark = pytest.mark.usefixtures("path")


class BatchNormalized(chainer.Chain):
    def __init__(self, n_class):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(1, 16, 3, pad=1, nobias=True)
            self.bn1 = L.BatchNormalization(16)
            self.conv2 = L.Convolution2D(16, 32, 3, 2, 1, nobias=True)
            self.bn2 = L.BatchNormalization(32)
            self.fc = L.Linear(32, n_class)

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        return self.fc(F.average(F.average_pooling_2d(h, 2), (2, 3)))


def losses(net, dtype="float32", moved=None):
    random = np.random.RandomState(0)
    x = random.rand(32, 1, 12, 12).astype("float32")
    t = random.randint(0, 10, 32).astype("int32")
    if moved is not None:
        x += moved.choice([-1e-7, 1e-7], x.shape).astype("float32")
    x = x.astype(dtype)
    with chainer.using_config("dtype", np.dtype(dtype)):
        model = L.Classifier(net(10))
        model(x, t)  # draws the parameters
    for param in model.params():
        param.array[...] = param.array.astype("float32")
    optimizer = chainer.optimizers.MomentumSGD(0.02).setup(model)
    result = []
    for _ in range(12):
        optimizer.update(model, x, t)
        result.append(float(model.loss.array))
    return np.array(result)


def small_cnn(n_class):
    return CNN(n_class, width=8)


@pytest.mark.parametrize("net", [small_cnn, BatchNormalized])
def test_losses_are_off_as_if_the_input_moved_by_1e_7(net, chainers_own):
    def train(dtype="float32", moved=None):
        np.random.seed(0)
        return losses(net, dtype, moved)

    with chainers_own():
        exact = train("float64")
        own = [train(moved=np.random.RandomState(i)) for i in range(6)]
    accepted = max(abs(run - exact).max() for run in own)
    assert abs(train() - exact).max() <= accepted
    assert exact[-1] < exact[0] - 0.02  # it learns


@threadpool_limits.wrap(limits=1)  # their BLAS threads would wait for each other
def test_threads_share_no_buffers():
    nets = CNN(10, width=8), CNN(10, width=24)
    for net in nets:
        net(np.zeros((1, 1, 12, 12), "f"))  # draws its parameters
    work = [lambda net=net: losses(lambda _: net.copy("copy")) for net in nets]
    alone = [run() for run in work]
    together = [[None] * 4 for _ in work]
    barrier = threading.Barrier(len(work))

    def thread(i):
        for j in range(4):
            barrier.wait()
            together[i][j] = work[i]()

    threads = [threading.Thread(target=thread, args=(i,)) for i in range(len(work))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, right in enumerate(alone):
        for result in together[i]:
            np.testing.assert_array_equal(result, right)


class Filtered(chainer.dataset.DatasetMixin):
    """Images that are convolved and normalised in the worker that loads them."""

    W = np.random.RandomState(0).randn(16, 3, 3, 3).astype("f")

    def __len__(self):
        return 12

    def get_example(self, i):
        x = np.random.RandomState(i).rand(4, 3, 40, 40).astype("f")
        y = F.convolution_2d(x, self.W, pad=1)
        y = F.batch_normalization(y, np.ones(16, "f"), np.zeros(16, "f"))
        return F.max_pooling_2d(F.relu(y), 2).array[0]


def test_forked_workers():
    dataset = Filtered()
    here = [dataset[i] for i in range(12)]  # the parent has its buffers by now
    iterator = MultiprocessIterator(
        dataset, 4, repeat=False, shuffle=False, n_processes=2, shared_mem=1 << 20
    )
    with iterator:
        there = [x for batch in iterator for x in batch]
    for x, y in zip(here, there, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
