import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import FunctionNode, Variable

from chainer_revive.cpu.function_node import variable

pytestmark = pytest.mark.usefixtures("path")


class Returning(FunctionNode):
    """Retains its input and gives what it is told to."""

    def __init__(self, outputs, elementwise=False):
        super().__init__()
        self.is_elementwise = elementwise
        self.made = outputs

    def forward(self, inputs):
        self.retain_inputs((0,))
        return self.made

    def backward(self, indexes, grad_outputs):
        (x,) = self.get_retained_inputs()
        return (grad_outputs[0] * x,)


ONE = np.ones(3, "f")


@pytest.mark.parametrize(
    "outputs, elementwise",
    [
        ([ONE], False),
        ((3.0,), False),
        ((ONE, "text"), False),
        ((ONE, ONE[:2]), True),
        ((ONE, None), False),
        ((ONE, ONE), True),
        ((ONE,), True),
    ],
)
def test_outputs_are_checked_as_in_chainer(outputs, elementwise, chainers_own):
    def outcome():
        x = Variable(np.full(3, 2, "f"))
        try:
            ys = Returning(outputs, elementwise).apply((x,))
        except (RuntimeError, TypeError) as error:
            return type(error), str(error)
        ys[0].grad = ONE
        ys[0].backward()
        return len(ys), x.grad.tolist()

    with chainers_own():
        wanted = outcome()
    assert outcome() == wanted


@pytest.mark.parametrize("bad", [[1.0, 2.0], None, 3])
def test_inputs_are_checked_as_in_chainer(bad, chainers_own):
    def outcome():
        with pytest.raises(Exception) as info:
            F.relu(bad)
        return info.type, str(info.value)

    with chainers_own():
        wanted = outcome()
    assert outcome() == wanted


def test_what_a_graph_knows(chainers_own):
    def outcome():
        x, w = Variable(ONE), chainer.Parameter(2 * ONE)
        with chainer.no_backprop_mode():
            apart = x * w
        y = F.exp(x * w + ONE)
        return (
            y.rank,
            y.requires_grad,
            apart.creator is None,
            y.creator.inputs[0].creator.label,
            [v.requires_grad for v in y.creator.inputs[0].creator.inputs],
            y.creator.inputs[0].data is None,
        )

    with chainers_own():
        wanted = outcome()
    assert outcome() == wanted


class Answering(FunctionNode):
    """Gives the gradient it is told to."""

    def __init__(self, gx):
        super().__init__()
        self.gx = gx

    def forward(self, inputs):
        return (inputs[0].copy(),)

    def backward(self, indexes, grad_outputs):
        return (Variable(self.gx),)


@pytest.mark.parametrize(
    "gx", [np.ones(3), np.ones(3, "e"), np.ones(4, "f"), np.ones((1, 3), "f")]
)
def test_gradients_are_checked_as_in_chainer(gx, chainers_own):
    def outcome():
        (y,) = Answering(gx).apply((Variable(ONE),))
        y.grad = ONE
        with pytest.raises((TypeError, ValueError)) as info:
            y.backward()
        return info.type, str(info.value)

    with chainers_own():
        wanted = outcome()
    assert outcome() == wanted


def test_hooks_see_each_function():
    with chainer.function_hooks.TimerHook() as hook:
        F.relu(Variable(ONE)) + 1
    assert [name for name, _ in hook.call_history] == ["ReLU", "AddConstant"]


def test_debug_mode_finds_nan():
    with (
        chainer.using_config("debug", True),
        np.errstate(invalid="ignore"),
        pytest.raises(RuntimeError, match="NaN is detected"),
    ):
        F.log(Variable(-ONE))


def test_shapes_are_checked():
    with pytest.raises(chainer.utils.type_check.InvalidType):
        F.linear(np.ones((2, 3), "f"), np.ones((4, 5), "f"))
    with chainer.using_config("type_check", False):
        assert F.relu(np.ones(3, "i")).dtype == np.int32


@pytest.mark.parametrize(
    "right, wrong",
    [
        (lambda x: F.relu(x), lambda x: F.relu(x.astype("i"))),
        (
            lambda x: F.convolution_2d(x, np.ones((4, 2, 3, 3), "f"), groups=2),
            lambda x: F.convolution_2d(x, np.ones((4, 2, 3, 3), "f")),
        ),
        (
            lambda x: F.convolution_2d(x, np.ones((4, 4, 3, 3), "f"), np.ones(4, "f")),
            lambda x: F.convolution_2d(x, np.ones((4, 4, 3, 3), "f"), np.ones(3, "f")),
        ),
        (lambda x: F.average(x, axis=3), lambda x: F.average(x, axis=4)),
        (lambda x: F.max_pooling_2d(x, 2), lambda x: F.max_pooling_2d(x[0], 2)),
        (
            lambda x: F.softmax_cross_entropy(x[0, 0], np.ones(5, "i")),
            lambda x: F.softmax_cross_entropy(x[0, 0], np.ones(4, "i")),
        ),
        (
            lambda x: F.linear(x[0, 0], np.ones((3, 5), "f")),
            lambda x: F.linear(x[0, 0], np.ones((3, 4), "f")),
        ),
    ],
)
def test_types_are_checked_after_others_have_passed(right, wrong, chainers_own):
    x = np.ones((2, 4, 5, 5), "f")

    def outcome():
        with pytest.raises(Exception) as info:
            wrong(x)
        return info.type, str(info.value)

    with chainers_own():
        wanted = outcome()
    for _ in range(2):
        right(x)
        assert outcome() == wanted


@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_variable_is_what_chainer_makes(requires_grad):
    def state(made):
        own, node = vars(made).copy(), vars(made.node).copy()
        del own["_node"]
        assert node.pop("_variable")() is made
        return own, node

    array = np.ones((2, 3), "f")
    wanted = Variable(array, requires_grad=requires_grad)
    assert state(variable(array, requires_grad)) == state(wanted)


class Doubled(FunctionNode):
    def forward(self, inputs):
        self.retain_outputs(i for i in (0,))
        return (inputs[0] * 2,)


def test_outputs_to_retain_may_come_from_a_generator():
    (y,) = Doubled().apply((ONE,))
    assert y.node.data is y.array
