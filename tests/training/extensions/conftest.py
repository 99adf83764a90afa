import pytest
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator


@pytest.fixture
def iterate():
    """Makes an iterator for an evaluation."""

    def make(*arrays, batchsize=10):
        return SerialIterator(TupleDataset(*arrays), batchsize, False, False)

    return make
