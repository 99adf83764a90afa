from unittest import mock

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.functions.activation.relu import ReLU
from chainer.functions.math.basic_math import Add
from hypothesis import given
from hypothesis import strategies as st

import chainer_revive
from chainer_revive import registry
from chainer_revive.cuda import current, linear
from chainer_revive.switches import use_what_the_environment_asks_for

ROWS = [
    (target, layer) for target, layers in registry.TABLE.items() for layer in layers
]


@pytest.fixture(autouse=True)
def as_before():
    yield
    for layer in registry.LAYERS:
        registry.switch(layer, False)
    use_what_the_environment_asks_for()


def chain(method):
    """The functions that a call goes through, the last to be asked first."""
    functions = []
    while hasattr(method, "of_layer"):
        functions.append(method.of_layer)
        method = method.below
    return [method, *functions[::-1]]


def recorded(fast, below):
    def call(*args, **kwargs):
        return fast(*args, **kwargs)

    call.of_layer, call.below = fast, below
    return call


switches = st.lists(
    st.tuples(st.sampled_from(list(registry.LAYERS)), st.booleans()), max_size=12
)


@given(switches)
def test_any_sequence_ends_where_it_should(sequence):
    for layer in registry.LAYERS:
        registry.switch(layer, False)
    with registry.put_together_by(recorded):
        for layer, on in sequence:
            registry.switch(layer, on)
        last = dict(sequence)
        for target, layers in registry.TABLE.items():
            wanted = [registry.original(target)]
            for layer in ("cpu", "cuda", "capture", "cudnn"):
                if layer in layers and last.get(layer):
                    wanted.append(registry.function_for(target, layer))
            assert chain(getattr(*registry.owner_of(target))) == wanted
    for target, layers in registry.TABLE.items():
        if not any(last.get(layer) for layer in layers):
            method = getattr(*registry.owner_of(target))
            assert method is registry.original(target)


@pytest.mark.parametrize("target, layer", ROWS)
def test_each_row_names_what_exists(target, layer):
    assert callable(registry.original(target))
    assert callable(registry.function_for(target, layer))


def test_a_layer_under_another_is_switched():
    """Both the CPU's and cuDNN's layer have an addition."""
    registry.switch("cpu", True)
    registry.switch("cudnn", True)
    registry.switch("cpu", False)
    registry.switch("cudnn", False)
    original = registry.original("chainer.functions.math.basic_math:Add.forward")
    assert Add.forward is original


@pytest.mark.parametrize("order", [["cpu", "capture"], ["capture", "cpu"]])
def test_what_lies_on_top_computes(order):
    calls = []

    def matmul(a, b):
        calls.append(a.shape)
        return a @ b

    x, w = np.ones((200, 30), "f"), np.ones((40, 30), "f")
    with mock.patch.object(linear, "_multiply", matmul):
        for layer in order:
            registry.switch(layer, True)
        y = F.linear(x, w)
    assert calls == [(200, 30)]
    assert (y.array == 30).all()


def test_a_step_with_a_loss_function_is_made_once():
    """What the layer does not cover, it leaves to Chainer after the loss."""

    class Launcher:
        array_type = type(None)

    model = chainer.Link(w=(3,))
    model.w.array[...] = 1
    optimizer = chainer.optimizers.SGD(0.5).setup(model)
    losses = []

    def loss():
        losses.append(F.sum(model.w))
        return losses[-1]

    current.use(Launcher())
    try:
        optimizer.update(loss)
    finally:
        current.use(None)
    assert len(losses) == 1 and optimizer.t == 1
    assert model.w.array.tolist() == [0.5] * 3


def test_a_word_that_use_does_not_know():
    with pytest.raises(ValueError, match="one of chainer, numpy, numba, not 'nmupy'"):
        chainer_revive.use(cpu="nmupy")
    with pytest.raises(ValueError, match='cudnn must be True, False or "auto"'):
        chainer_revive.use(cudnn="yes")


def test_a_method_that_a_user_replaced_stays():
    def doubled(self, inputs):
        return (own(self, inputs)[0] * 2,)

    chainer_revive.use(cpu="numpy")
    waiting = registry.Waiting(frozenset({"cpu"}), lambda args: True, lambda: None)
    registry.wait(waiting)
    own = ReLU.forward_cpu
    found = []
    with mock.patch.object(ReLU, "forward_cpu", doubled):
        found.append(F.relu(np.ones(1, "f")).array.item())  # nothing waits any more
        for cpu in ("chainer", "numpy"):
            chainer_revive.use(cpu=cpu)
            with chainer_revive.explaining():
                found.append(F.relu(np.ones(1, "f")).array.item())
    chainer_revive.use(cpu="chainer")
    assert found == [2, 2, 2]
    assert ReLU.forward_cpu is registry.original(
        "chainer.functions.activation.relu:ReLU.forward_cpu"
    )
