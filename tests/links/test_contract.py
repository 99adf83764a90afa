"""What a classifier asks of its predictor, and what it gives to it."""

import contextlib
import io

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix import (
    ManifoldMixupClassifier,
    MixupLayers,
    MixupPolicy,
    current_draw,
    mixup_data,
)

rng = np.random.RandomState(0)
X = rng.randn(8, 4).astype(np.float32)
T = rng.randint(0, 3, 8).astype(np.int32)


class Body(chainer.Chain):
    mixup_layers = (0, 1)

    def __init__(self):
        super().__init__(l1=L.Linear(4, 5), l2=L.Linear(5, 3))
        self.got = []

    def run(self, x, target, mixup_hidden, lam, layer_mix):
        self.got.append((type(x), target))
        a = b = target
        if mixup_hidden and layer_mix == 0:
            x, a, b = mixup_data(x, target, lam)
            self.got.append((type(x), b))
        h = F.relu(self.l1(x))
        if mixup_hidden and layer_mix == 1:
            h, a, b = mixup_data(h, target, lam)
        y = self.l2(h)
        return (y, a, b) if mixup_hidden else y


class InCall(Body):
    def __call__(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        return self.run(x, target, mixup_hidden, lam, layer_mix)


class ForwardIsAList(InCall):
    def __init__(self):
        super().__init__()
        self.forward = ["l1", "l2"]


class ForwardIsAHelper(InCall):
    def forward(self, x):
        raise AssertionError("Chainer calls __call__")


class InForward(Body):
    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        return self.run(x, target, mixup_hidden, lam, layer_mix)


class Inherited(InForward):
    """Calls what the contract is in, with all that it gets."""

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs)


@pytest.mark.parametrize(
    "net", [InCall, ForwardIsAList, ForwardIsAHelper, InForward, Inherited]
)
def test_the_contract_is_looked_for_where_chainer_calls(net):
    model = ManifoldMixupClassifier(net(), mixup_alpha=1, seed=0)
    for _ in range(4):
        model(X, T).backward()


def test_a_call_that_does_not_obey_the_contract_is_refused_at_once():
    class Hidden(InForward):
        def __call__(self, x):
            return super().__call__(x)

    with pytest.raises(TypeError, match=r"let Hidden.__call__ accept .* takes \(x\)"):
        ManifoldMixupClassifier(Hidden())


class OtherName(Body):
    def forward(self, x, t=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        return self.run(x, t, mixup_hidden, lam, layer_mix)


class Keywords(Body):
    def forward(self, x, target=None, **mixing):
        mixing = {"mixup_hidden": False, "lam": 1.0, "layer_mix": None, **mixing}
        return self.run(x, target, **mixing)


@pytest.mark.parametrize("net", [InCall, InForward, OtherName, Inherited, Keywords])
@pytest.mark.parametrize(
    "off", [{"policy": MixupPolicy(1, prob=0.0)}, {"mixup_hidden": False}]
)
def test_a_training_step_that_is_not_mixed_has_the_target_too(net, off):
    predictor = net()
    model = ManifoldMixupClassifier(predictor, **off)
    model(X, T)
    assert model.draw is None and predictor.got[-1][1] is T
    with chainer.using_config("train", False):
        model(X, T)
    assert predictor.got[-1][1] is None
    named = ManifoldMixupClassifier(predictor, label_key="t", **off)
    named(X, t=T)
    assert predictor.got[-1][1] is T


def test_a_network_that_is_not_of_the_contract_gets_no_target():
    class Other(chainer.Chain):
        def forward(self, x, target=None):
            assert target is None
            return x[:, :3]

    ManifoldMixupClassifier(Other(), mixup_hidden=False)(X, T)
    layers = MixupLayers(L.Linear(4, 3), ["input"])
    ManifoldMixupClassifier(layers, mixup_hidden=False)(X, T)


def test_the_input_is_of_the_type_that_evaluation_gives():
    for wrap in (np.asarray, chainer.Variable):
        net = InForward()
        ManifoldMixupClassifier(net, layer_mix=0, seed=0)(wrap(X), T)
        assert [kind for kind, _ in net.got] == [type(wrap(X))] * 2
    x = chainer.Variable(X)
    model = ManifoldMixupClassifier(InForward(), mixup_alpha=1, layer_mix=0, seed=0)
    model(x, T).backward()
    assert x.grad.any()


class OnlyRelu(InForward):
    """Its first function does not keep the array that it gets."""

    def run(self, x, target, mixup_hidden, lam, layer_mix):
        a = b = target
        if mixup_hidden:
            x, a, b = mixup_data(x, target, lam)
        y = self.l2(F.relu(self.l1(F.relu(x))))
        return (y, a, b) if mixup_hidden else y


class Standardised(InForward):
    """Goes on with another array, made of the mixed one."""

    def run(self, x, target, mixup_hidden, lam, layer_mix):
        a = b = target
        if mixup_hidden:
            x, a, b = mixup_data(x, target, lam)
        y = self.l2(F.relu(self.l1((x - x.mean()) / x.std())))
        return (y, a, b) if mixup_hidden else y


@pytest.mark.parametrize("net", [OnlyRelu, Standardised])
def test_what_is_done_with_the_mixed_array_need_not_be_seen(net):
    ManifoldMixupClassifier(net(), layer_mix=0, seed=0)(X, T).backward()


class Static(Body):
    @chainer.static_graph
    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        return self.run(x, target, mixup_hidden, lam, layer_mix)


@pytest.mark.parametrize("prob", [1.0, 0.5])
def test_mixing_within_a_static_graph_is_refused_by_its_name(prob):
    policy = MixupPolicy(1, layer_mix=1, prob=prob, seed=0)
    model = ManifoldMixupClassifier(Static(), policy=policy)
    with (
        chainer.using_config("use_static_graph", True),
        contextlib.redirect_stdout(io.StringIO()),
        pytest.raises((RuntimeError, TypeError), match=r"chainer\.static_graph"),
    ):
        for _ in range(8):
            model(X, T).backward()


def test_a_static_graph_behind_the_mixed_input_trains():
    class Inner(chainer.Chain):
        def __init__(self):
            super().__init__(l=L.Linear(4, 3))

        @chainer.static_graph
        def forward(self, x):
            return self.l(x)

    losses = []
    for static in (False, True):
        np.random.seed(0)
        net = Inner()
        model = ManifoldMixupClassifier(MixupLayers(net, ["input"]), True, seed=0)
        optimizer = chainer.optimizers.SGD(0.5).setup(model)
        with (
            chainer.using_config("use_static_graph", static),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            for _ in range(10):
                optimizer.update(model, X, T)
                losses.append(float(model.loss.array))
    np.testing.assert_allclose(losses[:10], losses[10:], rtol=1e-5)
    assert len(set(losses[:10])) == 10


class Two(chainer.Chain):
    """Takes a second input, or can do without."""

    def __init__(self):
        super().__init__(l=L.Linear(4, 3))

    def forward(self, x, z=None):
        y = self.l(x)
        return y if z is None else y * F.broadcast_to(F.mean(z), y.shape)


class Plain(Two):
    def forward(self, x):
        return self.l(x)


class OwnTwo(Two):
    mixup_layers = (0,)

    def forward(self, x, z=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        a = b = None
        if mixup_hidden:
            x, a, b = mixup_data(x, z, lam)
        return (self.l(x), a, b) if mixup_hidden else self.l(x)


@pytest.mark.parametrize("second", [X, np.zeros(8, np.int32)])
def test_a_second_target_is_not_taken_for_an_input(second):
    for predictor in (MixupLayers(Two(), ["l"]), OwnTwo()):
        model = ManifoldMixupClassifier(predictor)
        with pytest.raises(TypeError, match=r"'z', .*second target\? .* which lossfun"):
            model(X, second, T)
    with pytest.raises(TypeError, match=r"'z', .*second target\?"):
        ManifoldMixupClassifier(OwnTwo())(X, (X > 0).astype(np.int32), T)
    model = ManifoldMixupClassifier(MixupLayers(Plain(), ["input"]))
    with pytest.raises(TypeError, match=r"takes \(x\), .*2 arrays .* which lossfun"):
        model(X, second, T)


def test_an_optional_input_goes_in_by_name_and_a_mask_by_its_place():
    net = Two()
    model = ManifoldMixupClassifier(MixupLayers(net, ["input"]), label_key="t", seed=0)
    model(x=X, z=X, t=T)
    model = ManifoldMixupClassifier(MixupLayers(net, ["l"]))
    with chainer.using_config("train", False):
        model(X, X, T)  # as in chainer.links.Classifier

    class Masked(chainer.Chain):
        def __init__(self):
            super().__init__(l=L.Linear(4, 3))

        def forward(self, x, mask=None):
            if mask.dtype != bool:
                x, mask = x * mask, np.ones((8, 3), bool)
            return F.where(mask, self.l(x), np.zeros((8, 3), np.float32))

    for mask in np.ones((8, 3), bool), np.ones((8, 4), np.float32):
        point = "l" if mask.dtype == bool else "input"
        ManifoldMixupClassifier(MixupLayers(Masked(), [point]))(X, mask, T)


class Joins(InForward):
    """Joins the masks of both partners."""

    mask = np.arange(8) % 3 == 0

    def run(self, x, target, mixup_hidden, lam, layer_mix):
        draws = [current_draw()]
        result = super().run(x, target, mixup_hidden, lam, layer_mix)
        draws.append(current_draw())
        assert draws[0] is draws[1]
        self.draw = draws[0]
        if self.draw is not None:
            assert self.draw.lam is lam and self.draw.layer_mix == layer_mix
            self.joined = self.mask | self.mask[self.draw.perm]
        return result


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
def test_the_draw_of_the_running_pass(per):
    policy = MixupPolicy(1, per=per, prob=0.3, seed=0)
    net = Joins()
    model = ManifoldMixupClassifier(net, policy=policy)
    mixed = set()
    for _ in range(20):
        model(X, T)
        assert net.draw is model.draw and current_draw() is None
        mixed.add(net.draw is not None)
        if net.draw is not None:
            np.testing.assert_array_equal(
                net.joined,
                [Joins.mask[n] or Joins.mask[m] for n, m in enumerate(net.draw.perm)],
            )
    assert mixed == {True, False}
    with chainer.using_config("train", False):
        model(X, T)
    assert net.draw is None


class Returning(chainer.Chain):
    """Mixes its input, and returns the targets as a function says."""

    def __init__(self, targets):
        super().__init__(fc=L.Linear(4, 3))
        self.targets = targets

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        if not mixup_hidden:
            return self.fc(x)
        x, a, b = mixup_data(x, target, lam)
        order, a, b = self.targets(target, a, b)
        return self.fc(x)[order], a, b


ALL = slice(None)
OF_OTHERS = {
    "reversed": lambda t, a, b: (ALL, t, t[::-1]),
    "shifted": lambda t, a, b: (ALL, a, np.roll(t, 1, 0)),
    "a copy of the first": lambda t, a, b: (ALL, a, t.copy()),
    "the second twice": lambda t, a, b: (ALL, b, b),
}


@pytest.mark.parametrize("case", OF_OTHERS)
@pytest.mark.parametrize("t", [T, np.eye(3, dtype=np.float32)[T]])
def test_targets_of_others_than_the_partners_are_refused(case, t):
    net = Returning(OF_OTHERS[case])
    model = ManifoldMixupClassifier(net, mixup_alpha=1, seed=0)
    with pytest.raises(RuntimeError, match="have the targets of others than they were"):
        model(X, t)


def in_another_order(t, a, b):
    order = np.random.permutation(len(a))
    return order, a[order], b[order]


CHANGED = {
    "another dtype": lambda t, a, b: (ALL, a, b.astype(np.int64)),
    "copies": lambda t, a, b: (ALL, a.copy(), chainer.Variable(b.copy())),
    "by the draw": lambda t, a, b: (ALL, t, t[current_draw().perm]),
    "other classes": lambda t, a, b: (ALL, (a + 1) % 3, (b + 1) % 3),
    "two classes exchanged": lambda t, a, b: (ALL, *np.array([1, 0, 2])[[a, b]]),
    "another order": in_another_order,
}


@pytest.mark.parametrize("case", CHANGED)
def test_targets_may_come_back_changed(case):
    np.random.seed(0)
    model = ManifoldMixupClassifier(Returning(CHANGED[case]), mixup_alpha=1, seed=0)
    for n in (1, 2, 3, 4, 8) * 20:
        model(X[:n], np.random.randint(3, size=n).astype(np.int32))


@pytest.mark.parametrize("wrong", [None, [0] * 8, (T, T)])
def test_targets_that_are_no_arrays_are_named(wrong):
    model = ManifoldMixupClassifier(Returning(lambda t, a, b: (ALL, a, wrong)), seed=0)
    message = f"must return .*but one of its targets is a {type(wrong).__name__}"
    with pytest.raises(TypeError, match=message):
        model(X, T)
