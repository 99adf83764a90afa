import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("path")


@pytest.mark.parametrize("shape", [(3,), (40, 30, 5, 7), (1 << 15, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: chainer.optimizers.MomentumSGD(0.1, 0.8),
        lambda: chainer.optimizers.Adam(),
        lambda: chainer.optimizers.AdamW(eta=0.5, weight_decay_rate=0.01),
        lambda: chainer.optimizers.AMSBound(),
    ],
    ids=["MomentumSGD", "Adam", "AdamW", "AMSBound"],
)
def test_parameters_are_chainers_to_the_bit(
    optimizer, shape, dtype, layout, chainers_own
):
    def train():
        random = np.random.RandomState(0)
        W = np.asarray(random.randn(*shape).astype(dtype), order=layout)
        model = chainer.Link()
        with model.init_scope():
            model.W = chainer.Parameter(W)
        rule = optimizer().setup(model)
        if dtype == "float16":
            rule.eps = 1e-3
        for _ in range(3):
            model.W.grad = random.randn(*shape).astype(dtype)
            rule.update()
        states = [v for v in model.W.update_rule.state.values()]
        return [a.tobytes() for a in (model.W.array, *states)]

    with chainers_own():
        wanted = train()
    assert train() == wanted


def test_a_parameter_without_gradient_stays():
    model = chainer.Link()
    with model.init_scope():
        model.W = chainer.Parameter(np.ones((1 << 16,), "f"))
    rule = chainer.optimizers.MomentumSGD().setup(model)
    model.W.grad = None
    rule.update()
    assert np.all(model.W.array == 1)


@pytest.mark.parametrize("optimizer", ["MomentumSGD", "Adam"])
def test_arrays_that_do_not_fit_are_chainers_error(optimizer, chainers_own):
    def outcome(change):
        model = chainer.Link()
        with model.init_scope():
            model.W = chainer.Parameter(np.ones((1 << 16,), "f"))
        rule = getattr(chainer.optimizers, optimizer)().setup(model)
        model.W.grad = np.ones((1 << 16,), "f")
        rule.update()
        change(model.W)
        with pytest.raises(ValueError) as info:
            rule.update()
        return str(info.value)

    def grow(param):
        param.array = np.ones((1 << 17,), "f")
        param.grad = np.ones((1 << 17,), "f")

    def lock(param):
        param.array.flags.writeable = False

    for change in (grow, lock):
        with chainers_own():
            wanted = outcome(change)
        assert outcome(change) == wanted


def scaled(rule, param):
    param.grad *= 2


def clipped(rule, param):
    param.array.clip(-1, 1, out=param.array)


class OwnRule(chainer.optimizers.sgd.SGDRule):
    def update_core(self, param):
        param.array -= 3 * param.grad


@pytest.mark.parametrize(
    "prepare",
    [
        lambda rule: rule.add_hook(scaled, timing="pre"),
        lambda rule: rule.add_hook(clipped, timing="post"),
        lambda rule: setattr(rule, "enabled", False),
        lambda rule: setattr(rule.hyperparam, "lr", 0.5),
        lambda rule: setattr(rule, "update_core", lambda param: param.array.fill(7)),
    ],
    ids=["hook before", "hook after", "disabled", "own rate", "own update"],
)
def test_what_an_update_rule_is_told(prepare, chainers_own):
    def train():
        model = chainer.links.Linear(3, 2, initialW=np.ones((2, 3)))
        optimizer = chainer.optimizers.MomentumSGD(0.1).setup(model)
        prepare(model.W.update_rule)
        for _ in range(2):
            optimizer.update(lambda: chainer.functions.sum(model(np.ones((4, 3), "f"))))
        return model.W.array.tolist(), model.W.update_rule.t

    with chainers_own():
        wanted = train()
    assert train() == wanted


def test_loss_scale(chainers_own):
    def train():
        model = chainer.links.Linear(3, 2, initialW=np.ones((2, 3)))
        optimizer = chainer.optimizers.MomentumSGD(0.1).setup(model)
        optimizer.set_loss_scale(8.0)
        optimizer.update(lambda: chainer.functions.sum(model(np.ones((4, 3), "f"))))
        return model.W.array.tolist(), model.W.grad.tolist()

    with chainers_own():
        wanted = train()
    assert train() == wanted


def test_a_rule_of_the_users():
    model = chainer.links.Linear(3, 2, initialW=np.ones((2, 3)))
    optimizer = chainer.optimizers.SGD().setup(model)
    model.W.update_rule = OwnRule()
    optimizer.update(lambda: chainer.functions.sum(model(np.ones((4, 3), "f"))))
    assert np.all(model.W.array == 1 - 3 * 4)


def test_half_precision_with_a_master_copy(chainers_own):
    def train():
        with chainer.using_config("dtype", np.float16):
            model = chainer.links.Linear(3, 2, initialW=np.ones((2, 3)))
        optimizer = chainer.optimizers.MomentumSGD(0.1)
        optimizer.use_fp32_update()
        optimizer.setup(model)
        for _ in range(3):
            for param in model.params():
                param.grad = np.full(param.shape, 1e-3, np.float16)
            optimizer.update()
        master = model.W.update_rule._fp32_param.array
        return master.dtype, master.tolist(), model.W.array.tolist()

    with chainers_own():
        wanted = train()
    assert train() == wanted


def test_cleared_gradients_become_zeros():
    model = chainer.links.Linear(3, 2)
    optimizer = chainer.optimizers.SGD().setup(model)
    model.cleargrads()
    optimizer.update()
    assert not model.W.grad.any()


@pytest.mark.parametrize(
    "make",
    [
        chainer.optimizers.Adam,
        chainer.optimizers.AdamW,
        chainer.optimizers.AMSGrad,
        chainer.optimizers.AdaBound,
        chainer.optimizers.AMSBound,
        chainer.optimizers.MomentumSGD,
        chainer.optimizers.NesterovAG,
        chainer.optimizers.SGD,
        chainer.optimizers.RMSprop,
        chainer.optimizers.AdaGrad,
        chainer.optimizers.AdaDelta,
    ],
)
def test_a_parameter_without_an_array(make, chainers_own):
    """A layer that is never called does not know its input size."""

    def train():
        np.random.seed(0)
        model = chainer.Chain(used=L.Linear(3, 2), unused=L.Linear(None, 2))
        optimizer = make().setup(model)
        x = np.ones((4, 3), "f")
        for _ in range(3):
            optimizer.update(lambda: F.sum(model.used(x) ** 2))
        assert model.unused.W.array is None
        return model.used.W.array

    with chainers_own():
        expected = train()
    np.testing.assert_allclose(train(), expected, rtol=1e-6)
