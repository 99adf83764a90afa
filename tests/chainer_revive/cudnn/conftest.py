"""Chainer on cuDNN without a GPU: NumPy computes what cuDNN would be asked for."""

import threading
from contextlib import contextmanager

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.backends import cuda
from numpy_executor import NumpyExecutor, through

import chainer_revive
from chainer_revive.cudnn import executor
from chainer_revive.switches import use_what_the_environment_asks_for


def gradients(function, inputs):
    """Returns the output, the gradients by all inputs, and the gradients of these."""
    inputs = [chainer.Variable(x) for x in inputs]
    y = function(*inputs)
    random = np.random.RandomState(1)
    y.grad = y.xp.asarray(random.uniform(-1, 1, y.shape).astype(y.dtype))
    gs = chainer.grad([y], inputs, [y.grad_var], enable_double_backprop=True)
    loss = sum(F.sum(F.cast(g, np.float64) ** 2) for g in gs)
    variables = [y, *gs, *chainer.grad([loss], inputs)]
    return [v if v is None else cuda.to_cpu(v.array) for v in variables]


def compare(actual, expected, eps):
    """Checks that all differences are below eps of the largest element."""
    for a, e in zip(actual, expected, strict=True):
        if e is None:
            assert a is None
            continue
        assert a.shape == e.shape
        np.testing.assert_allclose(a.astype("d"), e, rtol=0, atol=eps * abs(e).max())


@pytest.fixture(autouse=True, scope="module")
def chainers_own():
    """Chainer's own code is the reference."""
    chainer_revive.use(cpu="chainer")
    yield
    use_what_the_environment_asks_for()


@pytest.fixture(name="gradients")
def gradients_fixture():
    return gradients


@pytest.fixture(name="compare")
def compare_fixture():
    return compare


@pytest.fixture
def fake():
    """``with fake() as executor:`` NumPy's arrays go through an executor in NumPy."""

    @contextmanager
    def use(instead=None):
        used = instead or NumpyExecutor()
        with through(used, lambda name: name.startswith("cudnn/")):
            yield used

    return use


@pytest.fixture
def on_gpu(monkeypatch, tmp_path):
    """CuPy's arrays go through cuDNN, whose plans are built anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(executor, "_of_thread", threading.local())
    chainer_revive.use(cudnn=True)
    yield cuda.cupy
    chainer_revive.use(cudnn=False)
