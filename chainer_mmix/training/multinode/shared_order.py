from __future__ import annotations

import numpy as np
from chainer.iterators import ShuffleOrderSampler


class SharedOrder(ShuffleOrderSampler):
    """Shuffles alike on all ranks, each of which reads its share of each minibatch.

    It is the ``order_sampler`` of one of Chainer's iterators over the whole dataset,
    the same on all ranks. The iterator's batch size is that of all ranks together; of
    each minibatch, a rank reads and gets a part::

        order = SharedOrder(communicator, np.random.RandomState(0))
        iterator = SerialIterator(train, batchsize * communicator.size,
                                  order_sampler=order)

    Minibatches, epochs and iterations are then those of one process, whatever the
    number of ranks: each example comes once an epoch, in an order that is drawn anew
    for each epoch, and none is left out or repeated to make shares equal.

    Args:
        communicator (~chainermn.CommunicatorBase): One of ChainerMN's.
        random_state (~numpy.random.RandomState): Draws the orders; in the same state on
            all ranks. By default it begins as :mod:`numpy.random` is now, which must
            be in the same state on all ranks.

    Attributes:
        share (tuple of int): The number of the part, and how many there are.
        random_state (~numpy.random.RandomState): What draws the orders.
    """

    def __init__(
        self, communicator, random_state: np.random.RandomState | None = None
    ) -> None:
        if random_state is None:
            random_state = np.random.RandomState()
            random_state.set_state(np.random.get_state())
        super().__init__(random_state)
        self.random_state = random_state
        self.share = (communicator.rank, communicator.size)
