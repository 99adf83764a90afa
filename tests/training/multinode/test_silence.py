import threading

import pytest

from chainer_mmix.training.multinode.silence import silence
from chainer_revive.cpu.steps import CannotReplayError

pytest.importorskip("mpi4py")

from chainermn.communicators.mpi_communicator_base import MpiCommunicatorBase


class Communicator(MpiCommunicatorBase):
    def _init_ranks(self):
        """Asks no other ranks."""

    def multi_node_mean_grad(self, model, zero_fill=False):
        """Has no other ranks."""


def test_only_threads_that_record_are_silent():
    """One ends while the other records, and a third makes a communicator."""
    world = object()
    there = Communicator(world)
    both, first_is_done = threading.Barrier(2, timeout=60), threading.Event()
    found = []

    def record(is_first):
        try:
            with silence():
                both.wait()
                if not is_first:
                    assert first_is_done.wait(60)
                with silence(), pytest.raises(CannotReplayError, match="exchanges"):
                    there.mpi_comm  # noqa: B018
                with pytest.raises(CannotReplayError, match="exchanges"):
                    there.mpi_comm  # noqa: B018
                found.append(Communicator(world))
        finally:
            first_is_done.set()
        found.append(there.mpi_comm)

    recording = [threading.Thread(target=record, args=(i,)) for i in (True, False)]
    for thread in recording:
        thread.start()
    found.append(there.mpi_comm)
    for thread in recording:
        thread.join()
    assert [getattr(one, "mpi_comm", one) for one in found] == [world] * 5
