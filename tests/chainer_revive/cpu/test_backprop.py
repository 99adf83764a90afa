"""The way back through a graph is Chainer's."""

import gc
import weakref

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import FunctionNode, Variable
from chainer.functions.connection.convolution_2d import Convolution2DFunction

import chainer_revive

pytestmark = pytest.mark.usefixtures("path")


class Product(FunctionNode):
    """Adds to the gradients that it finds."""

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        return (inputs[0] * inputs[1],)

    def backward_accumulate(self, indexes, grad_outputs, grad_inputs):
        a, b = self.get_retained_inputs()
        gxs = [grad_outputs[0] * (b, a)[i] for i in indexes]
        return tuple(
            gx if g is None else gx + g for gx, g in zip(gxs, grad_inputs, strict=True)
        )


class Miscounting(FunctionNode):
    def forward(self, inputs):
        return (inputs[0].copy(),)

    def backward(self, indexes, grad_outputs):
        return grad_outputs * 3


class OldSquare(chainer.Function):
    def forward(self, inputs):
        self.retain_inputs((0,))
        return (inputs[0] ** 2,)

    def backward(self, inputs, grad_outputs):
        return (2 * inputs[0] * grad_outputs[0],)


class Log(chainer.FunctionHook):
    name = "Log"

    def __init__(self):
        self.calls = []

    def backward_preprocess(self, function, in_data, out_grad):
        seen = [a is None or a.sum().item() for a in (*in_data, *out_grad)]
        self.calls.append(("before", function.label, seen))

    def backward_postprocess(self, function, in_data, out_grad):
        self.calls.append(("after", function.label, len(in_data), len(out_grad)))


def branches(x, w):
    h = x * w
    return F.sum(F.exp(h) * h + h * x)


def same_input_twice(x, w):
    return F.sum(x * x * w)


def several_outputs(x, w):
    a, _, c = F.split_axis(x * w, 3, axis=0)
    return F.sum(a * c)


def accumulating(x, w):
    (y,) = Product().apply((x, w))
    (z,) = Product().apply((y, y))
    return F.sum(z + y)


def old_style(x, w):
    return F.sum(OldSquare()(x * w))


def unchained(x, w):
    h = x * w
    g = F.exp(h)
    h.unchain()
    return F.sum(g * x)


def forgetting(x, w):
    return F.sum(F.forget(lambda x, w: F.exp(x * w) * w, x, w))


def without_gradient(x, w):
    return F.sum(x * w.array)


GRAPHS = (
    branches,
    same_input_twice,
    several_outputs,
    accumulating,
    old_style,
    unchained,
    forgetting,
    without_gradient,
)


def leaves():
    random = np.random.RandomState(0)
    return [Variable(random.rand(6).astype("f")) for _ in range(2)]


@pytest.mark.parametrize("options", [{}, {"retain_grad": True}, {"loss_scale": 8.0}])
@pytest.mark.parametrize("graph", GRAPHS)
def test_gradients(graph, options, chainers_own):
    def run():
        x, w = leaves()
        x.grad = np.ones(6, "f")  # is added to
        y = graph(x, w)
        between = y.creator.inputs[0].get_variable()
        y.backward(**options)
        found = x, w, y, between
        return [
            (None if v.grad is None else v.grad.tolist(), v._loss_scale) for v in found
        ]

    with chainers_own():
        wanted = run()
    assert run() == wanted


def test_from_several_variables(chainers_own):
    def run():
        x, w = leaves()
        h = x * w
        ys = [h, F.exp(h), x]
        for y in ys:
            y.grad = np.arange(6, dtype="f")
        chainer.backward(ys)
        return x.grad.tolist(), w.grad.tolist(), [y.grad is None for y in ys]

    with chainers_own():
        wanted = run()
    assert run() == wanted


def test_gradients_of_gradients(chainers_own):
    def run():
        x, w = leaves()
        F.sum(F.exp(x * w) * x).backward(enable_double_backprop=True)
        gx = x.grad_var
        x.cleargrad()
        w.cleargrad()
        F.sum(gx * gx).backward()
        return x.grad.tolist(), w.grad.tolist()

    with chainers_own():
        wanted = run()
    assert run() == wanted


def test_hooks_of_one_function_and_of_all(chainers_own):
    def run():
        x, w = leaves()
        h = x * w
        h.creator.add_hook(own := Log())
        F.sum(F.exp(h)).backward()
        y = F.sum(F.exp(x * w))
        with Log() as common:
            y.backward()
        return own.calls, common.calls

    with chainers_own():
        wanted = run()
    found = run()
    assert found == wanted
    assert [len(calls) for calls in found] == [2, 6]


class MiscountingConvolution(Convolution2DFunction):
    def backward(self, indexes, grad_outputs):
        return super().backward(indexes, grad_outputs)[:1]


def images_and_weights():
    W = Variable(np.ones((2, 1, 1, 1), "f"))
    return np.ones((1, 1, 2, 2), "f"), W, Variable(np.ones(2, "f"))


@pytest.mark.parametrize(
    "apply",
    [
        lambda: Miscounting().apply((leaves()[0],)),
        lambda: Miscounting().apply((*leaves(), *[np.ones(6, "f")] * 2)),
        lambda: MiscountingConvolution().apply(images_and_weights()),
    ],
    ids=["one input", "four inputs", "convolution"],
)
def test_a_wrong_number_of_gradients(apply, chainers_own):
    def run():
        (y,) = apply()
        with pytest.raises(ValueError) as info:
            F.sum(y).backward()
        return str(info.value)

    with chainers_own():
        wanted = run()
    assert run() == wanted


def test_a_hook_of_a_function_changes_the_gradient_that_is_added_to():
    class Set(chainer.FunctionHook):
        def backward_preprocess(self, function, in_data, out_grad):
            seen.append(x.grad.tolist())
            x.grad = np.full(6, 7, "f")

    seen = []
    x, _ = leaves()
    x.grad = np.full(6, 5, "f")
    y = F.identity(x)
    y.creator_node.add_hook(Set(), "set")
    F.sum(y).backward()
    assert seen == [[5] * 6]
    np.testing.assert_array_equal(x.grad, 8)


def test_an_old_function_twice():
    x, _ = leaves()
    y = OldSquare()(x)
    y.grad = np.ones(6, "f")
    y.backward(enable_double_backprop=True)
    with pytest.raises(RuntimeError, match="cannot twice-differentiate"):
        x.grad_var.backward()


def test_gradients_between_are_freed():
    alive = []

    class Watching(FunctionNode):
        def forward(self, inputs):
            return (inputs[0].copy(),)

        def backward(self, indexes, grad_outputs):
            gc.collect()
            alive.append(sum(ref() is not None for ref in gradients))
            gx = Variable(grad_outputs[0].array.copy())
            gradients.append(weakref.ref(gx))
            return (gx,)

    gradients = []
    (h,) = leaves()[:1]
    for _ in range(5):
        (h,) = Watching().apply((h,))
    F.sum(h).backward()
    assert alive == [0, 1, 1, 1, 1]


@pytest.mark.parametrize("shape", [(2,), None])
def test_a_cleared_gradient(shape, chainers_own):
    def run():
        param = chainer.Parameter(1, shape)
        param.zerograd()
        param.cleargrad()
        param.initialize((2,))
        return param.grad, param.grad_var, param.array.tolist()

    with chainers_own(), pytest.warns(DeprecationWarning):
        wanted = run()
    with pytest.warns(DeprecationWarning):
        assert run() == wanted


def test_cleared_gradients_are_not_listed():
    model = chainer.Sequential(L.Linear(None, 2), L.Linear(2, 2))
    with chainer_revive.explaining() as explanation:
        model.cleargrads()
    assert not explanation.fallbacks


def test_the_gradient_of_a_loss_that_has_one(chainers_own):
    def run():
        x, w = leaves()
        y = F.sum(x * w)
        y.grad = np.array(3, "f")
        y.backward()
        before = chainer.config.enable_backprop
        return x.grad.tolist(), y.grad, before

    with chainers_own():
        wanted = run()
    assert run() == wanted
