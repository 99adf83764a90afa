"""Chainer's own functions beside the fast ones."""

from contextlib import contextmanager

import pytest

import chainer_revive
from chainer_revive.cpu import buffers


@pytest.fixture(autouse=True)
def no_plans():
    """No plans from before a test changed something."""
    buffers.of_thread.plans.clear()


@pytest.fixture(scope="module")
def chainers_own(path):
    """A context manager in which Chainer's own functions are at work."""

    @contextmanager
    def use():
        chainer_revive.use(cpu="chainer")
        try:
            yield
        finally:
            chainer_revive.use(cpu=path)

    return use
