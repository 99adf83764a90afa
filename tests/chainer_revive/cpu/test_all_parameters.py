"""An optimizer's step over several parameters is Chainer's, to the bit."""

import pickle
from unittest import mock

import chainer
import numpy as np
import pytest
from chainer.optimizer_hooks import GradientClipping, WeightDecay

from chainer_revive.cpu import compiled

pytestmark = pytest.mark.usefixtures("path")

# More than one part of the loop, and parts that begin and end within a parameter.
SHAPES = [(3,), (257, 300), (1, 2, 5), (1 << 15,), (7,), (1,)]
OPTIMIZERS = {
    "MomentumSGD": lambda: chainer.optimizers.MomentumSGD(0.1, 0.8),
    "Adam": chainer.optimizers.Adam,
    "AdamW": lambda: chainer.optimizers.AdamW(eta=0.5, weight_decay_rate=0.01),
    "AMSGrad": chainer.optimizers.AMSGrad,
    "SGD": chainer.optimizers.SGD,
}


class Careful(chainer.optimizers.MomentumSGD):
    """Leaves out every second step."""

    def is_safe_to_update(self):
        return self.t % 2 == 0


class Halved(chainer.Parameter):
    def update(self):
        self.grad *= 0.5
        super().update()


def model_of(dtype="float32"):
    random = np.random.RandomState(0)
    model = chainer.Link()
    with model.init_scope():
        for i, shape in enumerate(SHAPES):
            array = random.randn(*shape).astype(dtype)
            setattr(model, f"p{i}", chainer.Parameter(array))
    return model


def train(make, prepare=lambda model, optimizer: None, dtype="float32", steps=3):
    """Returns the bytes of parameters, gradients and states, and all counters."""
    model = model_of(dtype)
    optimizer = make().setup(model)
    prepare(model, optimizer)
    random = np.random.RandomState(1)
    for _ in range(steps):
        for param in model.params():
            param.grad = random.randn(*param.shape).astype(param.dtype)
        optimizer.update()
    found = [optimizer.t]
    for _, param in sorted(model.namedparams()):
        rule = param.update_rule
        states = [rule.state[k] for k in sorted(rule.state or {})] if rule else []
        found.append(rule and rule.t)
        found += [a.tobytes() for a in (param.array, param.grad, *states)]
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_to_the_bit(name, dtype, chainers_own):
    with chainers_own():
        wanted = train(OPTIMIZERS[name], dtype=dtype)
    assert train(OPTIMIZERS[name], dtype=dtype) == wanted


def unpickle(model, optimizer):
    for param in model.params():
        param.array = pickle.loads(pickle.dumps(param.array))


@pytest.mark.parametrize("prepare", [lambda model, optimizer: None, unpickle])
@pytest.mark.parametrize("name", ["MomentumSGD", "Adam", "AdamW"])
def test_one_loop_makes_a_step(name, prepare, path):
    if path == "numpy":
        pytest.skip("updates one after the other")
    loops = compiled.loops(np.dtype("float32")).threads
    with mock.patch.object(loops, "run", wraps=loops.run) as run:
        train(OPTIMIZERS[name], prepare, steps=2)
    assert run.call_count == 2


def clip(rule, param):
    param.array.clip(-1, 1, out=param.array)


def double(rule, param):
    param.grad = 2 * param.grad


CHANGES = {
    "own rate": lambda m, o: setattr(m.p1.update_rule.hyperparam, "lr", 0.5),
    "disabled": lambda m, o: setattr(m.p1.update_rule, "enabled", False),
    "all disabled": lambda m, o: m.disable_update(),
    "no rule": lambda m, o: setattr(m.p3, "update_rule", None),
    "rule's hook before": lambda m, o: m.p1.update_rule.add_hook(double, timing="pre"),
    "rule's hook after": lambda m, o: m.p1.update_rule.add_hook(clip, timing="post"),
    "weight decay": lambda m, o: o.add_hook(WeightDecay(0.1)),
    "clipping": lambda m, o: o.add_hook(GradientClipping(1)),
    "hook after": lambda m, o: o.add_hook(clip_all, "clip", timing="post"),
    "loss scale": lambda m, o: [setattr(p, "_loss_scale", 8.0) for p in m.params()],
    "dynamic loss scale": lambda m, o: o.loss_scaling(),
    "own core": lambda m, o: setattr(
        m.p1.update_rule, "update_core_cpu", lambda param: param.array.fill(7)
    ),
    "another rule": lambda m, o: setattr(
        m.p1, "update_rule", chainer.optimizers.sgd.SGDRule()
    ),
    "another step": lambda m, o: setattr(o, "is_safe_to_update", lambda: False),
    "a parameter twice": lambda m, o: setattr(m, "p4", m.p0),
    "columns first": lambda m, o: setattr(
        m.p1, "array", np.asarray(m.p1.array, order="F")
    ),
    "its own Parameter": lambda m, o: put(m, Halved(m.p1.array), o),
}


def clip_all(optimizer):
    for param in optimizer.target.params():
        clip(None, param)


def put(model, param, optimizer):
    param.update_rule = optimizer.create_update_rule()
    with model.init_scope():
        model.p1 = param


@pytest.mark.parametrize("change", list(CHANGES))
def test_what_is_unusual(change, chainers_own):
    def run():
        return train(OPTIMIZERS["MomentumSGD"], CHANGES[change])

    with chainers_own():
        wanted = run()
    assert run() == wanted


def test_an_optimizer_of_the_users(chainers_own):
    with chainers_own():
        wanted = train(lambda: Careful(0.1))
    assert train(lambda: Careful(0.1)) == wanted


def test_a_gradient_that_has_been_cleared_becomes_zeros(chainers_own):
    def run():
        model = model_of()
        optimizer = OPTIMIZERS["MomentumSGD"]().setup(model)
        model.p2.update_rule.enabled = False
        for param in (model.p0, model.p1):
            param.grad = np.ones(param.shape, "f")
        for param in (model.p2, model.p3, model.p4, model.p5):
            param.cleargrad()
        optimizer.update()
        return [(p.array.tobytes(), p.grad.tolist()) for p in model.params()]

    with chainers_own():
        wanted = run()
    assert run() == wanted


def test_the_gradient_is_that_of_the_variable(chainers_own):
    def run():
        model = model_of()
        optimizer = OPTIMIZERS["MomentumSGD"]().setup(model)
        for param in model.params():
            param.grad_var = chainer.Variable(np.ones(param.shape, "f"))
            param.grad_var.array = np.full(param.shape, 3, "f")
        optimizer.update()
        return [p.array.tobytes() for p in model.params()]

    with chainers_own():
        wanted = run()
    assert run() == wanted


def test_it_has_to_be_set_up():
    with pytest.raises((RuntimeError, AttributeError)):
        chainer.optimizers.MomentumSGD().update()


def test_parameters_that_share_memory_are_updated_one_after_the_other():
    n = 33_000  # two parts of the loop
    model = chainer.Link()
    with model.init_scope():
        model.a = chainer.Parameter(np.zeros(n, np.float32))
        model.b = chainer.Parameter(np.zeros(n, np.float32))
    model.b.array = model.a.array
    optimizer = chainer.optimizers.MomentumSGD(1, momentum=0).setup(model)
    model.a.grad, model.b.grad = np.full((2, n), ((-1,), (-2,)), np.float32)
    for _ in range(500):
        optimizer.update()
    np.testing.assert_array_equal(model.a.array, 1500)


@pytest.mark.parametrize("make", [chainer.optimizers.MomentumSGD, OPTIMIZERS["Adam"]])
def test_a_rate_for_each_element(make):
    model = chainer.Link()
    with model.init_scope():
        model.p = chainer.Parameter(np.zeros((3, 2), np.float32))
    optimizer = make().setup(model)
    hp = model.p.update_rule.hyperparam
    rates = np.array([[1], [0], [2]], np.float32)
    setattr(hp, "lr" if hasattr(hp, "lr") else "alpha", rates)
    model.p.grad = np.ones((3, 2), np.float32)
    optimizer.update()
    np.testing.assert_allclose(model.p.array, -rates * [1, 1], rtol=1e-4)
    assert model.p.update_rule.t == 1


def test_the_gradient_of_another_kind_of_parameter_is_cleared_its_way():
    class Noting(chainer.Parameter):
        @property
        def grad_var(self):
            return super().grad_var

        @grad_var.setter
        def grad_var(self, g):
            seen.append(g)

    seen = []
    Noting(np.zeros(2, "f")).cleargrad()
    assert seen == [None]
