"""Chainer's own functions beside the fast ones, and arrays in many memory layouts."""

from contextlib import contextmanager, nullcontext
from unittest import mock

import numpy as np
import pytest

import chainer_revive
from chainer_revive.switches import use_what_the_environment_asks_for


@pytest.fixture(scope="module", params=["numpy", "numba", "numba in parts"])
def path(request):
    """Tests NumPy, and compiled loops in large and in small parts."""
    path, _, parts = request.param.partition(" ")
    if path == "numba":
        pytest.importorskip("numba")
    chainer_revive.use(cpu=path)
    with in_parts() if parts else nullcontext():
        yield path
    use_what_the_environment_asks_for()


@contextmanager
def in_parts():
    from chainer_revive.cpu.numba import threads

    run = threads.run

    def finely(task, n, grain, *arguments):
        run(task, n, 1, *arguments)

    with (
        mock.patch.object(threads, "count", lambda: 3),
        mock.patch.object(threads, "run", finely),
    ):
        yield


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


@pytest.fixture(scope="session")
def lay_out():
    """``lay_out(x, layout)`` copies an array into the memory layout of that name."""

    def contiguous(x):
        return np.ascontiguousarray(x)

    def last(x):
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)

    def every_second(x):
        return np.repeat(x, 2, axis=-1)[..., ::2]

    def reversed_(x):
        return np.ascontiguousarray(x[::-1, ..., ::-1])[::-1, ..., ::-1]

    layouts = {
        "channels first": contiguous,
        "channels last": last,
        "every second": every_second,
        "reversed": reversed_,
    }

    return lambda x, layout: layouts[layout](x)
