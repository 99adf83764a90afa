import json
from importlib.metadata import version

import chainer
import pytest
from threadpoolctl import threadpool_limits

import chainer_revive
from chainer_revive.cpu import blas
from chainer_revive.switches import use_what_the_environment_asks_for


@pytest.fixture(autouse=True)
def as_before():
    yield
    use_what_the_environment_asks_for()


def test_state_without_loops():
    chainer_revive.use(cpu="numpy")
    state = chainer_revive.state()
    assert state["cpu"] == "numpy"
    assert state["numba"] is state["threads"] is state["cudnn"] is None
    assert state["winograd"] is None
    chainer_revive.use(cpu="chainer")
    assert chainer_revive.state()["cpu"] == "chainer"


def test_state_with_loops():
    pytest.importorskip("numba")
    chainer_revive.use(cpu="numba")
    with threadpool_limits(1, user_api="blas"):
        state = chainer_revive.state()
    assert json.loads(json.dumps(state)) == state
    assert state["cpu"] == "numba" and state["numba"] == version("numba")
    assert state["threads"] == state["blas"]["threads"] == 1
    assert state["blas"]["name"] and state["cuda"] is False
    assert state["winograd"] is True
    with chainer.using_config("winograd", False):
        assert chainer_revive.state()["winograd"] is False


def test_describe(monkeypatch):
    chainer_revive.use(cpu="numpy")
    monkeypatch.setattr(blas, "controller", lambda: None)
    assert chainer_revive.describe().startswith("CPU: NumPy (no compiled loops)\nGPU: ")
    chainer_revive.use(cpu="chainer")
    assert chainer_revive.describe().startswith("CPU: Chainer's own code\n")


def test_what_is_left_as_it_is():
    chainer_revive.use(cpu="numpy")
    chainer_revive.use(cudnn=False, cuda=False)
    assert chainer_revive.state()["cpu"] == "numpy"
