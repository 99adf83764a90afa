from __future__ import annotations

import numpy as np
from chainer.iterators import ShuffleOrderSampler


class SharedOrder(ShuffleOrderSampler):
    """Shuffles alike on all ranks, each of which reads its share of each minibatch.

    It is the ``order_sampler`` of one of Chainer's iterators over the whole dataset,
    which is the same on all ranks. The iterator's batch size is that of all ranks
    together; each rank reads and gets its part of a minibatch::

        order = SharedOrder(communicator, np.random.RandomState(0))
        iterator = SerialIterator(train, batchsize * communicator.size,
                                  order_sampler=order)

    Minibatches, epochs and iterations are then those of one process, whatever the
    number of ranks: each example comes once per epoch, in a new order for each epoch,
    and none is left out or repeated to make the shares equal.

    Args:
        communicator (~chainermn.CommunicatorBase): One of ChainerMN's communicators.
        random_state (~numpy.random.RandomState): The generator of the orders, in the
            same state on all ranks. By default, it starts in the current state of
            :mod:`numpy.random`, which must be the same on all ranks.

    Attributes:
        share (tuple of int): The number of this rank's part, and the number of parts.
        random_state (~numpy.random.RandomState): The generator of the orders.
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
