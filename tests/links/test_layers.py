import copy
import functools
import gc
import pickle
import weakref

import chainer
import chainer.functions as F
import chainer.links as L
import chainercv.links
import numpy as np
import pytest
from chainer import training
from chainer.training.updaters import multiprocess_parallel_updater

from chainer_mmix import ManifoldMixupClassifier
from chainer_mmix.links.branches import BranchCheck
from chainer_mmix.links.layers import MixupLayers
from chainer_mmix.mixing import MixupDraw, using_draw

LAM, PERM = 0.3, np.array([3, 0, 1, 2])


@pytest.fixture(autouse=True)
def float64():
    np.random.seed(0)
    with chainer.using_config("dtype", np.float64):
        yield


class Block(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.a = L.Linear(5, 5)
            self.bn = L.BatchNormalization(5)
            self.b = L.Linear(5, 5)

    def forward(self, x):
        return F.relu(self.b(F.relu(self.bn(self.a(x)))) + x)


class Stage(chainer.ChainList):
    def forward(self, x):
        for block in self:
            x = block(x)
        return x


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.stem = L.Linear(4, 5)
            self.stage = Stage(Block(), Block())
            self.fc = L.Linear(5, 3)

    def forward(self, x):
        return self.fc(self.stage(F.relu(self.stem(x))))

    def stages(self):
        yield "input", lambda x: x
        yield "stem", self.stem
        yield "stage/0", lambda h: self.stage[0](F.relu(h))
        yield "stage/1", self.stage[1]
        yield None, self.fc


class Layers(chainer.ChainList):
    def __init__(self):
        super().__init__(L.Linear(4, 5), L.Linear(5, 5), L.Linear(5, 3))

    def forward(self, x):
        for link in self:
            x = F.tanh(link(x))
        return x

    def stages(self):
        yield "input", lambda x: x
        yield "0", self[0]
        yield "1", lambda h: self[1](F.tanh(h))
        yield None, lambda h: F.tanh(self[2](F.tanh(h)))


class Twice(chainer.Chain):
    def __init__(self):
        super().__init__(l1=L.Linear(4, 5), l2=L.Linear(5, 5), l3=L.Linear(5, 3))

    def forward(self, x):
        return self.l3(F.tanh(self.l2(F.tanh(self.l2(self.l1(x))))))

    def stages(self):
        yield "l1", self.l1
        yield "l2", self.l2
        yield None, lambda h: self.l3(F.tanh(self.l2(F.tanh(h))))


class OldStyle(Net):
    """As before Chainer 5, and in ChainerCV's MobileNetV2."""

    class Stage(chainer.ChainList):
        def __call__(self, x):
            return Stage.forward(self, x)

    def __init__(self):
        super().__init__()
        del self.stage
        with self.init_scope():
            self.stage = self.Stage(Block(), Block())

    def stages(self):
        yield "stage", lambda x: self.stage(F.relu(self.stem(x)))
        yield None, self.fc


class CallsForward(Net):
    def forward(self, x):
        return self.fc.forward(self.stage.forward(F.relu(self.stem.forward(x))))


def sequential():
    net = chainer.Sequential(L.Linear(4, 5), F.tanh, L.Linear(5, 5), F.tanh)
    net.append(L.Linear(5, 3))
    return net


def batch(n=4, dtype=np.float64):
    rng = np.random.RandomState(0)
    return rng.randn(n, 4).astype(dtype), rng.randint(0, 3, n).astype(np.int32)


def mixed_call(model, *args, layer_mix=None, **kwargs):
    with using_draw(MixupDraw(layer_mix, LAM, PERM)):
        return model(*args, mixup_hidden=True, lam=LAM, layer_mix=layer_mix, **kwargs)


def mix(h):
    return LAM * h + (1 - LAM) * h[PERM]


def by_hand(stages, x, point):
    """A staged forward, mixed with operators only."""
    for name, stage in stages:
        x = stage(x)
        if name == point:
            x = mix(x)
    return x


def gradients(net, y):
    net.cleargrads()
    F.sum(y * np.arange(y.size).reshape(y.shape)).backward()
    return {name: param.grad for name, param in net.namedparams()}


def state(net):
    """Weights and statistics."""
    arrays = {}
    net.serialize(chainer.serializers.DictionarySerializer(arrays))
    return copy.deepcopy(arrays)


def assert_same(ours, theirs, **tolerance):
    assert ours.keys() == theirs.keys()
    for key in ours:
        np.testing.assert_allclose(ours[key], theirs[key], err_msg=key, **tolerance)


def wrap(net, *layers, **kwargs):
    return MixupLayers(net, layers, **kwargs)


POINTS = [
    (make, name)
    for make in (Net, Layers, Twice, OldStyle, CallsForward)
    for name, _ in make().stages()
    if name is not None
]


@pytest.mark.parametrize(("make", "point"), POINTS)
def test_equals_a_hand_written_forward(make, point):
    net = make()
    reference = copy.deepcopy(net)
    x, t = batch()
    model = wrap(net, point)
    # The first step, which checks the graph, and one that does not.
    for _ in range(2):
        y, a, b = mixed_call(model, x, t, layer_mix=point)
        expected = by_hand(reference.stages(), x, point)
        np.testing.assert_allclose(y.array, expected.array, rtol=1e-12)
        np.testing.assert_array_equal(a, t)
        np.testing.assert_array_equal(b, t[PERM])
        assert_same(gradients(net, y), gradients(reference, expected), atol=1e-12)
        assert_same(state(net), state(reference), rtol=1e-12)


def test_a_sequential_names_its_links_as_its_weights():
    net = sequential()
    x, t = batch()
    (point,) = (name[1:] for name, link in net.namedlinks() if link is net[2])
    y, *_ = mixed_call(wrap(net, point), x, t, layer_mix=point)
    h = mix(net[2](F.tanh(net[0](x))))
    np.testing.assert_allclose(y.array, net[4](F.tanh(h)).array)


@pytest.mark.slow
def test_resnet50_of_chainercv():
    net = chainercv.links.ResNet50(n_class=5)
    net.pick = "fc6"
    x = np.random.randn(4, 3, 16, 16)
    net(x)
    reference = copy.deepcopy(net)

    def stages():
        for name in net.layer_names[:-1]:
            if name == "res3":
                for block in reference.res3.children():
                    yield f"res3/{block.name}", block
            else:
                yield name, reference[name]

    for point in "res2", "res3/b1":
        y, *_ = mixed_call(wrap(net, point), x, np.zeros(4, np.int32), layer_mix=point)
        expected = by_hand(stages(), x, point)
        np.testing.assert_allclose(y.array, expected.array, rtol=1e-9)
        ours, theirs = gradients(net, y), gradients(reference, expected)
        for name in "/conv1/conv/W", "/res3/b1/conv2/bn/gamma", "/fc6/b":
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-9)
    bn, expected = net.res4.b1.conv2.bn, reference.res4.b1.conv2.bn
    np.testing.assert_allclose(bn.avg_var, expected.avg_var, rtol=1e-9)


def test_a_link_hook_cannot_replace_outputs():
    # The reason why forward itself is intercepted.
    class Doubling(chainer.LinkHook):
        def forward_postprocess(self, args):
            return args.out * 2

    net, (x, _) = Net(), batch()
    expected = net.stem(x)
    with Doubling():
        np.testing.assert_array_equal(net.stem(x).array, expected.array)
    net.stem.add_hook(Doubling())
    np.testing.assert_array_equal(net.stem(x).array, expected.array)


class OfSeveralParts(chainer.Chain):
    class Split(chainer.Chain):
        def __init__(self, kind):
            super().__init__(left=L.Linear(4, 3), right=L.Linear(4, 3))
            self.kind = kind

        def forward(self, x):
            left, right = self.left(x), self.right(x)
            if self.kind is dict:
                return {"left": left, "right": right}
            return self.kind((left, right))

    def __init__(self, kind=tuple):
        super().__init__(split=self.Split(kind))

    def forward(self, x):
        h = self.split(x)
        left, right = (h["left"], h["right"]) if isinstance(h, dict) else h
        return F.tanh(left) * right


@pytest.mark.parametrize("kind", [tuple, list, dict])
def test_a_state_of_several_parts(kind):
    net = OfSeveralParts(kind)
    x, t = batch()
    y, *_ = mixed_call(wrap(net, "split"), x, t, layer_mix="split")
    left, right = mix(net.split.left(x)), mix(net.split.right(x))
    np.testing.assert_allclose(y.array, (F.tanh(left) * right).array)


class TwoInputs(chainer.Chain):
    def __init__(self):
        super().__init__(a=L.Linear(4, 3), b=L.Linear(2, 3), c=L.Linear(3, 3))

    def forward(self, x, z, mask=None):
        h = F.tanh(self.a(x)) + self.b(z)
        return self.c(h if mask is None else F.where(mask, h, h * 0))


def test_several_inputs_are_mixed_alike():
    net = TwoInputs()
    x, t = batch()
    z = np.random.randn(4, 2)
    mask = np.array([[True, False, True]] * 4)  # the same for both partners
    expected = net(mix(x), mix(z), mask).array
    model = wrap(net, "input", "c")
    calls = [
        mixed_call(model, x, z, mask, t, layer_mix=0),
        mixed_call(model, x, chainer.Variable(z), mask, target=t, layer_mix=0),
        mixed_call(model, x, t, z=z, mask=mask, layer_mix="input"),
        mixed_call(model, x=x, z=z, mask=mask, target=t, layer_mix=0),
    ]
    for y, a, b in calls:
        np.testing.assert_allclose(y.array, expected)
        np.testing.assert_array_equal(a, t)
        np.testing.assert_array_equal(b, t[PERM])
    mask = np.random.rand(4, 3) < 0.5
    y, *_ = mixed_call(model, x, z, mask, t, layer_mix="c")
    np.testing.assert_allclose(y.array, mix(net(x, z, mask)).array)
    np.testing.assert_array_equal(model(x, z).array, net(x, z).array)
    np.testing.assert_array_equal(model(x, z=z).array, net(x, z).array)


def test_without_mixing_it_is_the_network():
    net = Net()
    model = wrap(net, "stem")
    x, t = batch()
    with chainer.using_config("train", False):
        expected = net(x).array
        for y in (
            model(x),
            model(x=x),
            model(x, target=t),
            model(x, mixup_hidden=False, lam=0.3, layer_mix=0),
        ):
            np.testing.assert_array_equal(y.array, expected)


class Tokens(chainer.Chain):
    def __init__(self):
        super().__init__(embed=L.EmbedID(9, 4), fc=L.Linear(4, 3))

    def forward(self, ids):
        return self.fc(F.tanh(F.sum(self.embed(ids), axis=1)))


def test_token_ids():
    net, ids = Tokens(), np.arange(8).reshape(4, 2)
    _, t = batch()
    y, *_ = mixed_call(wrap(net, "embed"), ids, t, layer_mix=0)
    expected = net.fc(F.tanh(F.sum(mix(net.embed(ids)), axis=1)))
    np.testing.assert_allclose(y.array, expected.array)
    with pytest.raises(TypeError, match=r"int64.*such as the embedding"):
        mixed_call(wrap(net, "input"), ids, t, layer_mix=0)


def test_an_input_with_a_graph_of_its_own():
    net, first = Net(), L.Linear(4, 4)
    x, t = batch()
    h = first(x)
    for point in "input", "stem", "stage/0":
        y, *_ = mixed_call(wrap(net, point), h, t, layer_mix=point)
        first.cleargrads()
        F.sum(y).backward()
        assert np.abs(first.W.grad).max() > 0
    second = L.Linear(4, 2)
    with pytest.raises(RuntimeError, match="in a branch"):
        mixed_call(wrap(TwoInputs(), "a"), h, second(x), t)


def test_the_point_is_drawn_from_numpy_random_unless_given():
    model = wrap(Net(), "input", "stage/0", "stage")
    x, t = batch()

    def mixes_at(layer_mix):
        y, *_ = mixed_call(model, x, t, layer_mix=layer_mix)
        return y.array

    expected = [mixes_at(name) for name in model.mixup_layers]
    for k in (0, 1, 2, np.int64(2)):
        np.testing.assert_allclose(mixes_at(k), expected[k])

    def draws(seed):
        np.random.seed(seed)
        ys = [mixes_at(None) for _ in range(20)]
        return [[np.allclose(y, e) for e in expected].index(True) for y in ys]

    assert set(draws(0)) == {0, 1, 2}
    assert draws(1) == draws(1) != draws(0)


@pytest.mark.parametrize("layer_mix", ["fc", 2, -1, 1.5])
def test_an_unknown_point(layer_mix):
    x, t = batch()
    with pytest.raises(
        ValueError, match=r"Net has no mixing point .*; it has 'stem', 'stage'$"
    ):
        mixed_call(wrap(Net(), "stem", "stage"), x, t, layer_mix=layer_mix)


def test_a_function_chooses_the_links():
    def is_block(name, link):
        return isinstance(link, Block) and name != "stage/0"

    assert MixupLayers(Net(), is_block).mixup_layers == ("stage/1",)
    with pytest.raises(ValueError, match="none of 'input', 'fc', 'stage', 'stage/0'"):
        MixupLayers(Net(), lambda name, link: False)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (["stage/2"], ValueError, "no link 'stage/2'.*'stage/0', 'stage/1'"),
        (["stege"], ValueError, "Did you mean 'stage'"),
        (["stem", "stem"], ValueError, "'stem' comes twice"),
        ([], ValueError, "none of 'input', 'fc'"),
        ([0], TypeError, "0 is not a name. There are 'input', 'fc'"),
        ("stem", TypeError, r"list of names: \['stem'\]"),
    ],
)
def test_bad_names(layers, error, message):
    with pytest.raises(error, match=message):
        MixupLayers(Net(), layers)


def test_a_wrapped_network_inside_another():
    inner = Net()
    net = Inside(wrap(inner, "stage"))
    assert "" not in MixupLayers(net.base, lambda name, link: True).mixup_layers
    x, t = batch()
    y, *_ = mixed_call(wrap(net, "base/stage/0"), x, t)
    expected = net.fc(F.relu(by_hand(inner.stages(), x, "stage/0")))
    np.testing.assert_allclose(y.array, expected.array)


def test_bad_networks():
    with pytest.raises(TypeError, match=r"must be a chainer.Link"):
        MixupLayers(F.relu, ["l1"])
    net = chainercv.links.PickableSequentialChain()
    with net.init_scope():
        net.l1 = L.Linear(4, 5)
        net.relu1 = F.relu
    with pytest.raises(ValueError, match=r"'relu1' .* is a function, not a link"):
        MixupLayers(net, ["relu1"])
    with pytest.raises(ValueError, match="has a link of that name too"):
        MixupLayers(chainer.Chain(input=L.Linear(4)), ["input"])
    with pytest.raises(TypeError, match=r"net.pick = 'l1'"):
        MixupLayers(net, ["l1"], pick="l1")
    net = chainer.links.GoogLeNet(pretrained_model=None)
    for pick in (None, "logits"):
        with pytest.raises(ValueError, match=f"'loss3_fc', 'prob', .* not {pick!r}"):
            MixupLayers(net, ["input"], pick)
    with pytest.raises(ValueError, match=r"returns probabilities.*, 'fc6'$"):
        MixupLayers(chainercv.links.ResNet50(n_class=2), ["input"])


def test_the_target_is_missing():
    with pytest.raises(TypeError, match="the target is missing"):
        mixed_call(wrap(Net(), "stem"), batch()[0])


def test_a_link_that_is_not_called():
    class Unused(Net):
        def forward(self, x):
            h = self.stem(x)
            for block in self.stage:
                h = block(h)
            return h

    x, t = batch()
    with pytest.raises(RuntimeError, match="Unused did not call its link 'fc'"):
        mixed_call(wrap(Unused(), "fc"), x, t)
    with pytest.raises(RuntimeError, match=r"'stage', so .* one of 'stage/0', "):
        mixed_call(wrap(Unused(), "stage"), x, t)


class Flatten(chainer.Link):
    def forward(self, x):
        return F.reshape(x, (-1, 1))


XS = [np.ones((k, 4)) for k in (3, 1, 2, 2)]


@pytest.mark.parametrize(
    ("make", "point", "inputs", "error", "message"),
    [
        (
            lambda: chainer.Sequential(L.NStepLSTM(1, 4, 4, 0)),
            "0",
            (None, None, XS),
            TypeError,
            "has Variable, Variable, list",
        ),
        (
            lambda: chainer.Sequential(Flatten()),
            "0",
            (),
            ValueError,
            r"shape \(16, 1\), but there are 4 targets",
        ),
    ],
)
def test_states_that_cannot_be_mixed(make, point, inputs, error, message):
    x, t = batch()
    with pytest.raises(error, match=rf"output of '\[{point}\]' .*{message}"):
        mixed_call(wrap(make(), point), *(inputs or (x,)), t)


def test_lists_of_sequences_are_no_input_to_mix():
    net = chainer.Sequential(L.NStepLSTM(1, 4, 4, 0.0))
    with pytest.raises(TypeError, match=r"the input cannot be mixed.*has list"):
        mixed_call(wrap(net, "input"), None, None, XS, batch()[1])


# Branches


class Root(Net):
    """A shortcut from the input array itself."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Linear(4, 4)

    def forward(self, x):
        return super().forward(F.tanh(self.conv(x)) + x)


class Shared(chainer.Chain):
    def __init__(self):
        super().__init__(tower=L.Linear(4, 3), head=L.Linear(3, 3))

    def forward(self, x):
        return self.head(F.tanh(self.tower(x)) + self.tower(F.tanh(x)))


class Aux(Net):
    def forward(self, x):
        h = self.stem(x)
        return {"y": self.fc(self.stage(F.relu(h))), "features": [h]}


class Split(chainer.Chain):
    """Half of the channels pass, as in a ShuffleNet."""

    def __init__(self):
        super().__init__(stem=L.Linear(4, 4), half=L.Linear(2, 2), fc=L.Linear(4, 3))

    def forward(self, x):
        a, b = F.split_axis(self.stem(x), 2, axis=1)
        return self.fc(F.concat((self.half(a), b)))


class Padded(chainer.Chain):
    """What it makes of the token ids with NumPy is not in the graph."""

    def __init__(self):
        super().__init__(embed=L.EmbedID(9, 4), a=L.Linear(4, 3), b=L.Linear(4, 3))

    def forward(self, xs):
        ids = chainer.dataset.concat_examples(xs, padding=0)
        h = F.sum(self.embed(ids), axis=1)
        return F.tanh(self.a(h)) + self.b(h)


def pickable():
    net = chainercv.links.PickableSequentialChain()
    with net.init_scope():
        net.l1 = L.Linear(4, 5)
        net.l2 = L.Linear(5, 5)
        net.l3 = L.Linear(5, 3)
    net.pick = ("l3", "l1")
    return net


IDS = [np.arange(k) for k in (3, 1, 2, 2)]


@pytest.mark.parametrize(
    ("make", "point", "inputs", "message"),
    [
        (Net, "stage/0/a", (), "Mix after 'stage/0' instead"),
        (Net, "stage/1/bn", (), "Mix after 'stage/1' instead"),
        (Root, "conv", (), "Choose another point"),
        (Shared, "tower", (), "only the first of its 2 calls is mixed"),
        (TwoInputs, "a", (batch()[0], np.ones((4, 2))), "Choose another point"),
        (Aux, "stage", (), "output leads around"),
        (pickable, "l2", (), "output leads around"),
        (Split, "half", (), "Choose another point"),
        (Padded, "a", (IDS,), "Choose another point"),
    ],
)
@pytest.mark.parametrize("as_variables", [False, True])
def test_a_place_inside_a_branch(make, point, inputs, message, as_variables):
    x, t = batch()
    inputs = inputs or (x,)
    if as_variables and make is not Padded:
        inputs = tuple(map(chainer.Variable, inputs))
    model = wrap(make(), point)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=f"'{point}' .*in a branch.*{message}"):
            mixed_call(model, *inputs, t)


def test_a_place_inside_a_branch_of_a_classifier():
    net = chainercv.links.ResNet50(n_class=5)
    net.pick = "fc6"
    model = ManifoldMixupClassifier(wrap(net, "res2/b1/conv1/bn"), seed=0)
    x = np.random.randn(2, 3, 16, 16)
    with pytest.raises(RuntimeError, match="Mix after 'res2/b1' instead"):
        model(x, np.zeros(2, np.int32))


class Legitimate(chainer.Chain):
    """Much goes around each layer, but nothing of the samples."""

    def __init__(self):
        super().__init__(
            stem=L.Linear(4, 5),
            l1=L.Linear(5, 5),
            l2=L.Linear(5, 5),
            place=L.EmbedID(7, 5),
            rnn=L.LSTM(5, 5),
        )
        with self.init_scope():
            self.scale = chainer.Parameter(1.5, (4, 5))
        self.add_persistent("mean", np.ones(5))

    def forward(self, x, mask=None):
        bias = F.tanh(self.scale)[0] + F.sum(self.place(np.arange(7)), 0) + self.mean
        h = F.tanh(self.stem(x)) - self.mean
        for layer in self.l1, self.l2:
            h = layer(h) + F.broadcast_to(bias, h.shape)
            h = h * F.sigmoid(layer(h))
            if mask is not None:
                h = F.where(mask, h, h * 0)
        self.rnn.reset_state()
        return self.rnn(F.dropout(h, 0.5)), bias


@pytest.mark.parametrize("point", ["input", "l1", "l2", "rnn"])
def test_ways_that_carry_nothing_of_a_sample_are_no_shortcut(point):
    x, t = batch()
    mask = np.ones((4, 5), bool)
    y, *_ = mixed_call(wrap(Legitimate(), point), x, mask, t, layer_mix=point)
    assert len(y) == 2


def test_a_picked_layer_may_be_the_mixed_one():
    net, (x, t) = pickable(), batch()
    (l3, l1), *_ = mixed_call(wrap(net, "l1"), x, t)
    np.testing.assert_allclose(l1.array, mix(net.l1(x)).array)
    np.testing.assert_allclose(l3.array, net.l3(net.l2(l1)).array)


def test_a_link_that_the_output_does_not_come_from():
    class Detached(Net):
        def forward(self, x):
            return self.fc(self.stage(F.relu(self.stem(x))).array)

    x, t = batch()
    with pytest.raises(RuntimeError, match=r"not computed from that of .*'stage'"):
        mixed_call(wrap(Detached(), "stage"), x, t)


def test_a_frozen_part_can_be_mixed_but_a_forgotten_one_cannot():
    class Frozen(Net):
        def forward(self, x):
            with chainer.no_backprop_mode():
                h = F.relu(self.stem(x))
            return self.fc(self.stage(h))

    class Forgetful(Net):
        def forward(self, x):
            return self.fc(F.forget(self.stage, self.stem(x)))

    x, t = batch()
    net = Frozen()
    y, *_ = mixed_call(wrap(net, "stem"), x, t)
    expected = net.fc(net.stage(F.relu(mix(net.stem(x)))))
    np.testing.assert_allclose(y.array, expected.array)
    for point in "stage", "stage/0":
        with pytest.raises(RuntimeError, match=r"within chainer.functions.forget"):
            mixed_call(wrap(Forgetful(), point), x, t)
    mixed_call(wrap(Forgetful(), "stem"), x, t)


def test_the_check_changes_nothing():
    class Checked(Net):
        def forward(self, x):
            return super().forward(F.dropout(x))

    reference = Checked()
    model = wrap(reference, "stage/0")
    others = copy.deepcopy(model)
    others._checks["stage/0"] = BranchCheck("stage/0", ())
    others._checks["stage/0"]._passed = True
    results = []
    for net in model, others:
        np.random.seed(1)
        y, *_ = mixed_call(net, *batch())
        results.append((y.array, gradients(net, y), state(net), np.random.rand()))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_equal(ours, theirs)


def test_without_a_graph_the_check_waits():
    model = wrap(Net(), "stage/0/a")
    with chainer.no_backprop_mode():
        mixed_call(model, *batch())
    with pytest.raises(RuntimeError, match="in a branch"):
        mixed_call(model, *batch())


def test_it_leaves_no_trace_on_the_links():
    class Fails(chainer.Link):
        def forward(self, x):
            raise RuntimeError("out of order")

    class FailsOldStyle(chainer.Link):
        def __call__(self, x):
            raise RuntimeError("out of order")

    x, t = batch()
    for link in Fails(), FailsOldStyle():
        before = type(link), dict(vars(link))
        with pytest.raises(RuntimeError, match="out of order"):
            mixed_call(wrap(chainer.Sequential(link), "0"), x, t)
        assert type(link) is before[0]
        vars(link)["name"] = None
        assert vars(link) == before[1]

    net = Net()
    net.fc.forward = own = functools.partial(L.Linear.forward, net.fc)
    mixed_call(wrap(net, "fc"), x, t)
    assert net.fc.forward is own


@pytest.mark.parametrize("make", [Net, OldStyle])
def test_the_graph_is_freed_with_the_output(make):
    model, (x, t) = wrap(make(), "stage"), batch()
    gc.disable()
    try:
        for _ in range(2):
            y, *_ = mixed_call(model, x, t)
            node = weakref.ref(y.node)
            del y
            assert node() is None
    finally:
        gc.enable()


# The habits of a link


def test_weights_are_interchangeable(tmp_path):
    bare, net = Net(), Net()
    wrapped = wrap(net, "stage")
    assert [k for k, _ in wrapped.namedparams()] == [k for k, _ in bare.namedparams()]
    for source, target in (bare, wrapped), (wrapped, Net()):
        chainer.serializers.save_npz(tmp_path / "weights.npz", source)
        chainer.serializers.load_npz(tmp_path / "weights.npz", target)
        assert_same(state(target), state(source))
    assert_same(state(net), state(bare))

    chainer.serializers.save_npz(tmp_path / "plain.npz", L.Classifier(bare))
    model = ManifoldMixupClassifier(wrap(Net(), "stage"))
    chainer.serializers.load_npz(tmp_path / "plain.npz", model)
    assert_same(state(model.predictor), state(bare))
    chainer.serializers.save_npz(tmp_path / "mixup.npz", model)
    with np.load(tmp_path / "plain.npz") as plain, np.load(tmp_path / "mixup.npz") as m:
        assert set(m) - {"policy/rng"} == set(plain)
    plain = L.Classifier(Net())
    chainer.serializers.load_npz(tmp_path / "mixup.npz", plain)
    assert_same(state(plain.predictor), state(bare))


def test_uninitialised_weights_load_too(tmp_path):
    trained = chainer.Sequential(L.Linear(4, 3))
    chainer.serializers.save_npz(tmp_path / "weights.npz", trained)
    lazy = wrap(chainer.Sequential(L.Linear(None, 3)), "0")
    assert [k for k, _ in lazy.namedparams(include_uninit=False)] == ["/0/b"]
    chainer.serializers.load_npz(tmp_path / "weights.npz", lazy)
    np.testing.assert_array_equal(lazy.net[0].W.array, trained[0].W.array)


def test_the_state_of_an_optimizer_has_the_names_of_the_bare_network():
    keys = []
    for model in L.Classifier(Net()), L.Classifier(wrap(Net(), "stage")):
        optimizer = chainer.optimizers.Adam().setup(model)
        optimizer.update(model, *batch())
        arrays = {}
        optimizer.serialize(chainer.serializers.DictionarySerializer(arrays))
        keys.append(set(arrays))
    assert keys[0] == keys[1]


def test_links_and_what_they_report_have_the_names_of_the_bare_network():
    class Reporting(Net):
        def forward(self, x):
            chainer.report({"mean": x.mean()}, self)
            chainer.report({"one": 1}, self.stage[0])
            return super().forward(x)

    observations = []
    for net in Reporting(), wrap(Reporting(), "stage"):
        model = L.Classifier(net)
        reporter = chainer.Reporter()
        reporter.add_observer("main", model)
        reporter.add_observers("main", model.namedlinks(skipself=True))
        with reporter:
            model(*batch())
        observations.append(reporter.observation.keys())
    assert observations[0] == observations[1] >= {"main/predictor/mean"}
    wrapped, bare = wrap(Net(), "stage"), Net()
    assert list(dict(wrapped.namedlinks()))[2:] == list(dict(bare.namedlinks()))[1:]
    assert len(list(wrapped.namedlinks())) == len(list(wrapped.links()))


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda link: pickle.loads(pickle.dumps(link)),
        lambda link: link.copy("share"),
        lambda link: link.copy("copy"),
        lambda link: link.repeat(1, "copy")[0],
    ],
)
@pytest.mark.parametrize("make", [Net, OldStyle])
def test_copies(copied, make):
    model, (x, t) = wrap(make(), "stage", "input"), batch()
    expected, *_ = mixed_call(model, x, t, layer_mix="stage")
    other = copied(model)
    assert other.mixup_layers == model.mixup_layers
    assert other.net is not model.net and other.net.stage is not model.net.stage
    y, *_ = mixed_call(other, x, t, layer_mix="stage")
    np.testing.assert_allclose(y.array, expected.array)
    y, *_ = mixed_call(other, x, t, layer_mix="input")
    assert not np.allclose(y.array, expected.array)


def test_a_copy_with_new_weights():
    model = wrap(Net(), "stage")
    for other in model.copy("init"), model.repeat(2)[1]:
        assert other.mixup_layers == ("stage",)
        assert not np.allclose(other.net.fc.W.array, model.net.fc.W.array)
        other.copyparams(model)
        assert_same(state(other), state(model))


def test_gradients_and_counts():
    model, other = wrap(Net(), "stage"), wrap(Net(), "stage")
    assert model.count_params() == Net().count_params()
    grads = gradients(model, mixed_call(model, *batch())[0])
    other.cleargrads()
    other.addgrads(model)
    other.addgrads(model)
    for name, param in other.namedparams():
        np.testing.assert_allclose(param.grad, 2 * grads[name])
    model.cleargrads()
    assert all(param.grad is None for param in model.params())
    assert model.to_device("@numpy").net.fc.W.device == chainer.get_device("@numpy")


def test_parallel_updater():
    x, t = batch(8)
    data = chainer.datasets.TupleDataset(x, t)
    model = ManifoldMixupClassifier(wrap(Net(), "stage", "input"), seed=0)
    before = state(model.predictor)
    optimizer = chainer.optimizers.SGD(0.1).setup(model)
    updater = training.updaters.ParallelUpdater(
        chainer.iterators.SerialIterator(data, 8),
        optimizer,
        devices={"main": "@numpy", "second": "@numpy"},
    )
    updater.update()
    main, second = (updater._models[key] for key in ("main", "second"))
    assert second.draw is not None and second.predictor is not main.predictor
    weights = dict(main.predictor.namedparams())
    for name, param in second.predictor.namedparams():
        np.testing.assert_array_equal(param.array, weights[name].array)
        assert not np.array_equal(param.array, before[name[1:]])


def test_multiprocess_parallel_updater():
    # Its workers get the model pickled, and flat arrays of all parameters, which they
    # make from the names in order.
    bare, model = L.Classifier(Net()), ManifoldMixupClassifier(wrap(Net(), "stage"))
    worker = pickle.loads(pickle.dumps(model))
    worker.cleargrads()
    worker(*batch()).backward()
    sizes = multiprocess_parallel_updater.size_num_grads
    assert sizes(worker) == sizes(model) == sizes(bare)
    shapes = [
        [(k, p.shape) for k, p in sorted(m.namedparams())] for m in (worker, bare)
    ]
    assert shapes[0] == shapes[1]


def test_in_a_classifier():
    net = Net()
    points = [name for name, _ in net.stages() if name]
    model = ManifoldMixupClassifier(wrap(copy.deepcopy(net), *points), seed=0)
    x, t = batch()
    for _ in range(8):
        loss = model(x, t)
        lam, perm = model.draw.lam, model.draw.perm
        y = x
        for name, stage in net.stages():
            y = stage(y)
            if name == model.draw.layer_mix:
                y = lam * y + (1 - lam) * y[perm]
        expected = lam * F.softmax_cross_entropy(y, t)
        expected += (1 - lam) * F.softmax_cross_entropy(y, t[perm])
        np.testing.assert_allclose(loss.array, expected.array)
        for link, value in (model, loss), (net, expected):
            link.cleargrads()
            value.backward()
        ours = {k: param.grad for k, param in model.predictor.namedparams()}
        theirs = {k: param.grad for k, param in net.namedparams()}
        assert_same(ours, theirs, atol=1e-10)


# Suggestions


def test_suggest_prints_a_table(capsys):
    proposal = MixupLayers.suggest(Net(), batch()[0])
    assert proposal == ["input", "stage/0", "stage/1"]
    assert (
        capsys.readouterr().out
        == """\
   name     link    output  parameters
*  input            (4, 4)            
   stem     Linear  (4, 5)          25
*  stage/0  Block   (4, 5)          70
*  stage/1  Block   (4, 5)          70
   stage    Stage   (4, 5)         140
   fc       Linear  (4, 3)          18
"""
    )


class Views(chainer.Chain):
    """The output of the first link shares its memory with the input."""

    def __init__(self):
        super().__init__(flat=Rows(), fc=L.Linear(4, 3))

    def forward(self, x):
        return self.fc(self.flat(x))


class Rows(chainer.Link):
    def forward(self, x):
        return F.reshape(x, (len(x), -1))


class SharedBlock(chainer.Chain):
    """One link with two names."""

    def __init__(self):
        block = OldStyle.Stage(Block())
        super().__init__(stem=L.Linear(4, 5), a=block, b=block, fc=L.Linear(5, 3))

    def forward(self, x):
        return self.fc(self.a(self.stem(x)))


@pytest.mark.parametrize(
    "make", [Net, OldStyle, Root, Aux, Split, Legitimate, Views, SharedBlock]
)
def test_what_the_table_lists_can_be_mixed_and_nothing_else(make, capsys):
    x, t = batch()
    MixupLayers.suggest(make(), x)
    rows = capsys.readouterr().out.splitlines()[2:]
    listed = {row[3:].split(" ")[0] for row in rows}
    net = make()
    for path, _ in net.namedlinks(skipself=True):
        try:
            mixed_call(wrap(net, path[1:]), x, t)
        except (RuntimeError, ValueError):
            assert path[1:] not in listed
        else:
            # Of a link that is called twice, the first call can be mixed.
            assert path[1:] in listed or (make is Legitimate and path in ("/l1", "/l2"))


def test_suggest_has_no_side_effects():
    class Lazy(chainer.Chain):
        def __init__(self):
            super().__init__(
                l1=L.Linear(5), bn=L.BatchNormalization(axis=0), l2=L.Linear(3)
            )

        def forward(self, x):
            modes.append(chainer.config.train)
            return self.l2(F.dropout(self.bn(self.l1(x))))

    modes, net = [], Lazy()
    before = np.random.get_state()[1].copy()
    with chainer.no_backprop_mode():
        assert MixupLayers.suggest(net, batch()[0]) == ["input", "bn"]
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert modes[:2] == [False, True] and True not in modes[2:]
    assert net.bn.avg_mean is None
    assert net.l1.W.array is None and net.l2.W.array is None


class Mobile(chainer.Chain):
    """Blocks without shortcuts where the size changes, as in a MobileNetV2."""

    class Block(chainer.Chain):
        def __init__(self, n_in, n_out, stride):
            super().__init__(
                expand=L.Convolution2D(n_in, 8, 1),
                depthwise=L.Convolution2D(8, 8, 3, stride, 1, groups=8),
                project=L.Convolution2D(8, n_out, 1),
            )

        def __call__(self, x):
            h = self.project(F.clipped_relu(self.depthwise(self.expand(x)), 6.0))
            return h + x if h.shape == x.shape else h

    def __init__(self):
        super().__init__(conv=L.Convolution2D(3, 4, 3, 2, 1), logits=L.Linear(6, 3))
        sizes = [(4, 3, 1), (3, 5, 2), (5, 5, 1), (5, 5, 1), (5, 6, 2), (6, 6, 1)]
        for k, size in enumerate(sizes):
            self.add_link(f"block_{k}", self.Block(*size))
        self.n_block = len(sizes)

    def forward(self, x):
        h = self.conv(x)
        for k in range(self.n_block):
            h = self[f"block_{k}"](h)
        return self.logits(F.average(h, axis=(2, 3)))


class Inside(chainer.Chain):
    def __init__(self, base):
        super().__init__(base=base, fc=L.Linear(None, 3))

    def forward(self, x):
        return self.fc(F.relu(self.base(x)))


class LeNet(chainer.Chain):
    def __init__(self):
        super().__init__(
            conv1=L.Convolution2D(3, 4, 3),
            bn1=L.BatchNormalization(4),
            conv2=L.Convolution2D(4, 4, 3),
            fc3=L.Linear(None, 5),
            fc4=L.Linear(5, 3),
        )

    def forward(self, x):
        h = F.max_pooling_2d(F.relu(self.bn1(self.conv1(x))), 2)
        return self.fc4(F.relu(self.fc3(F.relu(self.conv2(h)))))


class Headed(chainer.Chain):
    class Head(chainer.Chain):
        def __init__(self):
            super().__init__(l2=L.Linear(5, 5), l3=L.Linear(5, 3))

        def forward(self, x):
            return self.l3(F.relu(self.l2(x)))

    def __init__(self):
        super().__init__(l1=L.Linear(4, 5), head=self.Head())

    def forward(self, x):
        return self.head(F.relu(self.l1(x)))


class Sequences(chainer.Chain):
    def __init__(self):
        super().__init__(rnn=self.Last(), fc=L.Linear(4, 3))

    class Last(L.NStepLSTM):
        def __init__(self):
            super().__init__(1, 4, 4, 0)

        def forward(self, xs):
            return super().forward(None, None, xs)[0][-1]

    def forward(self, xs):
        return self.fc(self.rnn(xs))


class Auto(chainer.Chain):
    """It comes back to the size of its first layer."""

    def __init__(self):
        super().__init__(
            down=L.Convolution2D(3, 4, 3, pad=1),
            deep=L.Convolution2D(4, 4, 4, 2, 1),
            up=L.Deconvolution2D(4, 4, 4, 2, 1),
            out=L.Convolution2D(4, 3, 1),
        )

    def forward(self, x):
        return self.out(self.up(self.deep(self.down(x))))


class Dilated(chainer.Chain):
    """Its last stages keep the size of the second, as backbones of segmentation do."""

    class Unit(chainer.Chain):
        def __init__(self, n_in, n_out, stride, dilate):
            super().__init__(
                conv=L.Convolution2D(n_in, n_out, 3, stride, dilate, dilate=dilate),
                around=L.Convolution2D(n_in, n_out, 1, stride),
            )

        def forward(self, x):
            return F.relu(self.conv(x) + self.around(x))

    def __init__(self):
        super().__init__(
            stem=L.Convolution2D(3, 4, 3, 2, 1),
            stage1=chainer.Sequential(self.Unit(4, 4, 1, 1), self.Unit(4, 4, 1, 1)),
            stage2=chainer.Sequential(self.Unit(4, 6, 2, 1), self.Unit(6, 6, 1, 1)),
            stage3=chainer.Sequential(self.Unit(6, 8, 1, 2), self.Unit(8, 8, 1, 2)),
            stage4=chainer.Sequential(self.Unit(8, 10, 1, 4), self.Unit(10, 10, 1, 4)),
            head=L.Convolution2D(10, 3, 1),
        )

    def forward(self, x):
        h = self.stage2(self.stage1(self.stem(x)))
        return F.sum(self.head(self.stage4(self.stage3(h))), axis=(2, 3))


class OfArrays(chainer.Chain):
    """It takes arrays only."""

    def __init__(self):
        super().__init__(l1=L.Linear(4, 5), l2=L.Linear(5, 3))

    def forward(self, x):
        return self.l2(F.relu(self.l1(x.astype(np.float64))))


IMAGES = np.random.RandomState(0).rand(2, 3, 16, 16)


@pytest.mark.parametrize(
    ("make", "x", "proposal"),
    [
        (Layers, batch()[0], ["input", "0", "1"]),
        (lambda: Inside(L.Linear(4, 4)), batch()[0], ["input", "base"]),
        (lambda: Inside(Net()), batch()[0], ["input", "base/stage/0", "base/stage/1"]),
        (lambda: Inside(Mobile()), IMAGES, ["input", "base/block_3", "base/block_5"]),
        (Mobile, IMAGES, ["input", "block_3", "block_5"]),
        (LeNet, IMAGES, ["input", "bn1", "conv2"]),
        (Auto, IMAGES, ["input", "down", "deep"]),
        (Dilated, IMAGES, ["input", "stage1", "stage2"]),
        (OfArrays, batch()[0], ["input", "l1"]),
        (Tokens, np.zeros((2, 3), np.int32), ["embed"]),
        (TwoInputs, (batch()[0], np.ones((4, 2))), ["input"]),
        (TwoInputs, (batch()[0], np.ones((4, 2)), np.ones((4, 3), bool)), ["input"]),
        (Twice, batch()[0], ["input", "l1"]),
        (Headed, batch()[0], ["input", "l1", "head/l2"]),
        (Sequences, XS, ["rnn"]),
        (lambda: Inside(Padded()), IDS, ["base"]),
        (OfSeveralParts, batch()[0], ["input"]),
    ],
)
def test_proposals(make, x, proposal):
    net = make()
    assert MixupLayers.suggest(net, x) == proposal
    inputs = x if isinstance(x, tuple) else (x,)
    target = np.zeros(len(inputs[0]), np.int32)
    perm = np.arange(len(target))[::-1]
    model = MixupLayers(net, proposal)
    for point in proposal:
        with using_draw(MixupDraw(point, LAM, perm)):
            model(*inputs, target, mixup_hidden=True, lam=LAM, layer_mix=point)


def vgg16_layers():
    net = L.VGG16Layers(None)
    net.fc6 = L.Linear(512, 8)  # for small images
    net.fc7 = L.Linear(8, 8)
    net.fc8 = L.Linear(8, 5)
    return net


def vgg16():
    net = chainercv.links.VGG16(5)
    net.fc6 = L.Linear(512, 8)
    net.fc7 = L.Linear(8, 8)
    net.pick = "fc8"
    return net


def seresnet50():
    net = chainercv.links.SEResNet50(5)
    net.pick = "fc6"
    return net


@pytest.mark.parametrize(
    ("make", "size", "pick", "proposal"),
    [
        (lambda: L.ResNet50Layers(None), 32, "fc6", ["res2", "res3"]),
        pytest.param(
            vgg16_layers, 32, "fc8", ["conv1_2", "conv2_2"], marks=pytest.mark.slow
        ),
        (lambda: L.GoogLeNet(None), 224, "loss3_fc", ["inc3b", "inc4e"]),
        (seresnet50, 32, None, ["res2", "res3"]),
        (vgg16, 32, None, ["conv1_2", "conv2_2"]),
    ],
)
def test_networks_of_chainer_and_chainercv(make, size, pick, proposal):
    with chainer.using_config("dtype", np.float32):
        net = make()
        x = np.random.rand(2, 3, size, size).astype(np.float32)
        names = MixupLayers.suggest(net, x)
        assert names == ["input", *proposal]
        model = ManifoldMixupClassifier(
            MixupLayers(net, names, pick), layer_mix=names[-1], seed=0
        )
        loss = model(x, np.array([1, 2], np.int32))
        expected = net(x) if pick is None else net(x, layers=[pick])[pick]
        loss.backward()
        assert model.y.shape == expected.shape and model.y.ndim == 2
        assert not np.array_equal(model.y.array, expected.array)
