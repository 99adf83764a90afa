"""One kernel for all parameters against Chainer's own loop."""

import chainer
import numpy as np
import pytest
from chainer import optimizers
from chainer.optimizer_hooks import GradientClipping, GradientNoise, WeightDecay
from chainer.serializers import NpzDeserializer, npz

from chainer_mmix.training import SGD
from chainer_revive import registry
from chainer_revive.cuda import current
from chainer_revive.switches import use_what_the_environment_asks_for

MAKE = {
    "momentum_sgd": lambda: optimizers.MomentumSGD(0.1, 0.8),
    "nesterov": lambda: optimizers.NesterovAG(0.1, 0.8),
    "sgd": lambda: SGD(0.1, 0.8, 0.02),
    "sgd, nesterov": lambda: SGD(0.1, 0.8, 0.02, nesterov=True),
    "adam": lambda: optimizers.Adam(0.01),
    "adamw": lambda: optimizers.AdamW(0.01, eta=0.5, weight_decay_rate=0.02),
}
HOOKS = {
    "none": [],
    "decay": [WeightDecay(0.3)],
    "clip": [GradientClipping(0.5)],
    "decay, clip": [WeightDecay(0.3), GradientClipping(0.5)],
    "clip, decay": [GradientClipping(0.5), WeightDecay(0.3)],
    "clip far away": [GradientClipping(1e6)],
}
SHAPES = {"a": (3, 4), "b": (), "c": (2, 3, 4, 5), "d": (0,)}


class Model(chainer.Chain):
    def __init__(self, dtype):
        super().__init__()
        random = np.random.RandomState(0)
        with self.init_scope():
            for name, shape in SHAPES.items():
                array = np.asarray(random.standard_normal(shape), dtype)
                setattr(self, name, chainer.Parameter(array))


def train(
    make,
    hooks=(),
    *,
    dtype="f",
    steps=range(3),
    scale=None,
    prepare=lambda optimizer: None,
    resume=None,
):
    """Makes steps with random gradients and returns all that a snapshot holds."""
    model = Model(dtype)
    optimizer = make().setup(model)
    for hook in hooks:
        optimizer.add_hook(hook)
    prepare(optimizer)
    if resume is not None:
        for part in (model, optimizer):
            part.serialize(NpzDeserializer(resume))
    for step in steps:
        random = np.random.RandomState(step)
        for name, shape in SHAPES.items():
            grad = (scale or 1) * random.standard_normal(shape)
            param = getattr(model, name)
            param.grad = np.asarray(grad, dtype) if name != "b" else None
            param._loss_scale = scale
        optimizer.update()
    saved = {**npz.serialize(optimizer), **npz.serialize(model)}
    for name in SHAPES:
        master = getattr(model, name).update_rule._fp32_param
        if master is not None:
            saved[f"master of {name}"] = master.array
    return {key: np.array(value) for key, value in saved.items()}


@pytest.fixture
def chainers(launcher):
    """The same by Chainer's own code."""

    def call(*args, **kwargs):
        current.use(None)
        try:
            return train(*args, **kwargs)
        finally:
            current.use(launcher)

    return call


def assert_equal(actual, wanted, rtol=2e-5, atol=1e-6):
    assert actual.keys() == wanted.keys()
    for key in wanted:
        assert actual[key].dtype == wanted[key].dtype, key
        np.testing.assert_allclose(actual[key], wanted[key], rtol, atol, err_msg=key)


@pytest.mark.parametrize("hooks", HOOKS.values(), ids=HOOKS)
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_parameters_and_states_are_chainers(make, hooks, launcher, chainers):
    actual = train(make, hooks)
    clips = any(isinstance(hook, GradientClipping) for hook in hooks)
    assert launcher.calls == [*["clip"] * clips, "update"] * 3
    assert_equal(actual, chainers(make, hooks))


@pytest.mark.parametrize("hooks", HOOKS.values(), ids=HOOKS)
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_with_a_loss_scale(make, hooks, launcher, chainers):
    actual = train(make, hooks, scale=8.0)
    assert launcher.calls.count("update") == 3
    assert_equal(actual, chainers(make, hooks, scale=8.0))


@pytest.mark.parametrize("hooks", HOOKS.values(), ids=HOOKS)
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_half_precision_with_a_master_copy(make, hooks, launcher, chainers):
    def master(optimizer):
        optimizer.use_fp32_update()

    settings = {"dtype": "e", "scale": 8.0, "prepare": master}
    actual = train(make, hooks, **settings)
    assert launcher.calls.count("update") == 3
    assert "master of a" in actual
    # Chainer rounds the gradient after each hook.
    assert_equal(actual, chainers(make, hooks, **settings), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_snapshots_are_interchangeable(make, launcher, chainers):
    hooks = [WeightDecay(0.01)]
    whole = chainers(make, hooks, steps=range(4))
    for first, second in ((train, chainers), (chainers, train)):
        half = first(make, hooks, steps=range(2))
        rest = second(make, hooks, steps=range(2, 4), resume=half)
        assert_equal(rest, whole)
    assert launcher.calls == ["update"] * 4


def test_a_parameter_may_have_rates_of_its_own(launcher, chainers):
    def prepare(optimizer):
        optimizer.target.a.update_rule.hyperparam.lr = 0.7

    make = MAKE["momentum_sgd"]
    actual = train(make, prepare=prepare)
    assert launcher.calls == ["update"] * 3
    assert_equal(actual, chainers(make, prepare=prepare))


def test_a_frozen_parameter_counts_in_the_norm_only(launcher, chainers):
    def prepare(optimizer):
        optimizer.target.c.update_rule.enabled = False

    make, hooks = MAKE["adam"], [GradientClipping(0.1)]
    actual = train(make, hooks, prepare=prepare)
    np.testing.assert_array_equal(actual["c"], Model("f").c.array)
    assert launcher.calls == ["clip", "update"] * 3
    assert_equal(actual, chainers(make, hooks, prepare=prepare))


def channels_last(optimizer):
    param = optimizer.target.c
    array = np.ascontiguousarray(param.array.transpose(0, 2, 3, 1))
    param.array = array.transpose(0, 3, 1, 2)


def test_strides_are_kept(launcher, chainers):
    seen = []
    update = launcher.update
    launcher.update = lambda rule, tensors, clip: (
        seen.extend({a.strides for a in (t.param, t.grad, *t.states)} for t in tensors),
        update(rule, tensors, clip),
    )
    half = chainers(MAKE["adam"], steps=range(2))
    actual = train(MAKE["adam"], steps=range(2, 4), prepare=channels_last, resume=half)
    assert all(len(strides) == 1 for strides in seen)
    assert (240, 4, 60, 12) in set.union(*seen)  # bytes of a channels-last (2, 3, 4, 5)
    assert_equal(actual, chainers(MAKE["adam"], steps=range(4)))


class MyHook(WeightDecay):
    pass


class MyRule(optimizers.momentum_sgd.MomentumSGDRule):
    pass


def other_rule(optimizer):
    optimizer.target.a.update_rule = MyRule(optimizer.hyperparam)


def two_rules(optimizer):
    optimizer.target.a.update_rule = optimizers.nesterov_ag.NesterovAGRule(
        optimizer.hyperparam
    )


def hook_of_a_rule(optimizer):
    optimizer.target.a.update_rule.add_hook(WeightDecay(0.1))


def with_gaps(optimizer):
    optimizer.target.a.array = np.zeros((3, 8), "f")[:, ::2]


@pytest.mark.parametrize(
    "make, hooks, settings",
    [
        (optimizers.SGD, [], {}),
        (optimizers.AMSGrad, [], {}),
        (optimizers.AdaBound, [], {}),
        (optimizers.MomentumSGD, [MyHook(0.1)], {}),
        (optimizers.MomentumSGD, [GradientNoise(0.0)], {}),
        (optimizers.MomentumSGD, [], {"dtype": "d"}),
        (optimizers.MomentumSGD, [], {"dtype": "e"}),
        (optimizers.MomentumSGD, [], {"prepare": other_rule}),
        (optimizers.MomentumSGD, [], {"prepare": two_rules}),
        (optimizers.MomentumSGD, [], {"prepare": hook_of_a_rule}),
        (optimizers.MomentumSGD, [], {"prepare": with_gaps}),
    ],
)
def test_what_is_not_covered_is_chainers(make, hooks, settings, launcher, chainers):
    actual = train(make, hooks, **settings)
    assert launcher.calls == []
    assert_equal(actual, chainers(make, hooks, **settings), 0, 0)


def test_post_hooks_are_chainers(launcher):
    def post(optimizer):
        optimizer.add_hook(WeightDecay(0.1), timing="post")

    train(optimizers.MomentumSGD, prepare=post)
    assert launcher.calls == []


def test_arrays_of_another_kind_are_chainers(launcher, monkeypatch):
    monkeypatch.setattr(launcher, "array_type", type("ndarray", (), {}))
    train(optimizers.Adam)
    assert launcher.calls == []


def losses(optimizer):
    """Trains by dynamic loss scaling, past an overflow."""
    model = chainer.links.Linear(3, 2, initialW=np.ones((2, 3)))
    optimizer = optimizer.setup(model)
    optimizer.loss_scaling(interval=2)
    x = np.ones((1, 3), "f")
    scales, finite = [], []
    for step in range(6):
        factor = np.float32(1e38 if step == 3 else 1)
        optimizer.update(lambda f=factor: chainer.functions.sum(model(x) * f))
        scales.append(optimizer._loss_scale)
        finite.append(optimizer.is_safe_to_update())
    return scales, finite, model.W.array


def test_dynamic_loss_scaling_with_one_check(launcher):
    # 8 * 1e38 overflows: the step is left out and the scale is halved.
    with pytest.warns(UserWarning) as warned:
        scales, finite, w = losses(optimizers.MomentumSGD(0.1))
    assert finite == [True, True, True, False, True, True]
    assert scales[:4] == [2, 4, 8, 4]
    assert launcher.calls.count("finite") == 6
    assert launcher.calls.count("update") == 5
    current.use(None)
    with pytest.warns(UserWarning) as expected:
        wanted = losses(optimizers.MomentumSGD(0.1))
    assert [str(w.message) for w in warned] == [str(w.message) for w in expected]
    assert (scales, finite) == wanted[:2]
    np.testing.assert_array_equal(w, wanted[2])


@pytest.mark.parametrize(
    "value, message", [("2", "CHAINER_MMIX_CUDA=2 is unknown"), ("0", None), ("", None)]
)
def test_off_without_a_gpu(value, message, monkeypatch):
    monkeypatch.setattr(chainer.backends.cuda, "available", False)
    monkeypatch.setenv("CHAINER_MMIX_CUDA", value)
    if message:
        with pytest.raises(ImportError, match=message):
            use_what_the_environment_asks_for()
    else:
        use_what_the_environment_asks_for()
    assert not registry.is_on("cuda")
