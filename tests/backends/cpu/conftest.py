"""Chainer's own functions beside the fast ones, and arrays in many memory layouts."""

from contextlib import contextmanager

import numpy as np
import pytest

from chainer_mmix.backends import cpu


@pytest.fixture(scope="module", params=["numpy", "numba"])
def path(request):
    """Runs tests with and without compiled loops."""
    if request.param == "numba":
        pytest.importorskip("numba")
    cpu.use(request.param)
    yield request.param
    cpu.install()


@pytest.fixture(scope="module")
def chainers_own(path):
    """A context manager in which Chainer's own functions are at work."""

    @contextmanager
    def use():
        cpu.use("chainer")
        try:
            yield
        finally:
            cpu.use(path)

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
