import multiprocessing
import os
import signal
import time

import pytest

from chainer_mmix.training import signals

fork = multiprocessing.get_context("fork")


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_forked_workers_end_by_a_signal(signum):
    with signals.stoppable():
        worker = fork.Process(target=time.sleep, args=(60,))
        worker.start()
        os.kill(worker.pid, signum)
        worker.join(20)
        assert worker.exitcode == -signum


def test_a_pool_can_be_ended_in_a_run():
    with signals.stoppable(), fork.Pool(2) as pool:
        assert pool.map(abs, [-1, 2]) == [1, 2]
