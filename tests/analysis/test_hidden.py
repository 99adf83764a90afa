import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix import MixupLayers, MixupSequential, mixup_data
from chainer_mmix.analysis.hidden import hidden_states
from chainer_mmix.models import CNN


class Plain(chainer.Chain):
    """A network that knows nothing of mixing."""

    def __init__(self):
        super().__init__(
            conv=L.Convolution2D(1, 2, 3), bn=L.BatchNormalization(2), fc=L.Linear(8, 3)
        )

    def forward(self, x):
        return self.fc(F.dropout(F.relu(self.bn(self.conv(x)))))


class Contract(Plain):
    mixup_layers = (0, 1, "two")

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        h = x
        for point, stage in (
            (0, lambda x: x),
            (1, lambda h: F.relu(self.bn(self.conv(h)))),
            ("two", lambda h: (F.sum(h, axis=1), F.max(h, axis=(2, 3)))),
        ):
            h = stage(h)
            if mixup_hidden and point == layer_mix:
                h, target, partner = mixup_data(h, target, lam)
        y = self.fc(F.tile(h[1], (1, 4)))
        return (y, target, partner) if mixup_hidden else y


@pytest.fixture
def data():
    x = np.random.default_rng(0).standard_normal((6, 1, 4, 4)).astype(np.float32)
    return x, np.arange(6, dtype=np.int32) % 3


def flat(variable):
    return chainer.as_array(variable).reshape(6, -1)


def test_of_links_by_name(data):
    x, t = data
    net = Plain()
    net(x)  # statistics that are not those of this batch
    with chainer.using_config("train", False):
        conv = net.conv(x)
        bn = net.bn(conv)
        y = net(x)
    for wrap in (net, MixupLayers(net, ["conv"])):
        for name, state in (("input", x), ("conv", conv), ("bn", bn), ("fc", y)):
            states = hidden_states(wrap, name, x, t)
            np.testing.assert_array_equal(states, flat(state), name)


def test_of_the_points_of_a_contract(data):
    x, t = data
    net = Contract()
    with chainer.using_config("train", False):
        h = F.relu(net.bn(net.conv(x)))
    two = np.hstack([flat(F.sum(h, axis=1)), flat(F.max(h, axis=(2, 3)))])
    for point, state in ((0, flat(x)), (1, flat(h)), ("two", two)):
        states = hidden_states(net, point, x, t)
        np.testing.assert_array_equal(states, state, str(point))
    # A network of the contract has links as well.
    states = hidden_states(net, "conv", x, t)
    np.testing.assert_array_equal(states, flat(net.conv(x)))


def test_of_models_and_lists(data):
    x = np.random.default_rng(0).random((6, 1, 8, 8)).astype(np.float32)
    t = data[1]
    net = CNN(3, width=4)
    states = hidden_states(net, 2, x, t)
    np.testing.assert_array_equal(states, flat(net.block2(net.block1(x))))
    states = hidden_states(net, "block2", x, t)
    np.testing.assert_array_equal(states, flat(net.block2(net.block1(x))))
    net = MixupSequential((L.Linear(64, 5), False), (F.relu, False), (F.exp, True))
    states = hidden_states(net, 2, x, t)
    np.testing.assert_array_equal(states, flat(F.relu(net[0](x))))
    states = hidden_states(net, "0", x, t)
    np.testing.assert_array_equal(states, flat(net[0](x)))


def test_of_several_inputs(data):
    class Two(chainer.Chain):
        mixup_layers = (1,)

        def __init__(self):
            super().__init__(fc=L.Linear(16, 3))

        def forward(
            self, a, b, target=None, mixup_hidden=False, lam=1.0, layer_mix=None
        ):
            h = self.fc(a) + 2 * self.fc(b)
            return mixup_data(h, target, lam) if mixup_hidden else h

    x, t = data
    net = Two()
    expected = flat(net(x, x + 1))
    for inputs in ((x, x + 1), {"b": x + 1, "a": x}):
        np.testing.assert_array_equal(hidden_states(net, 1, inputs, t), expected)
    states = hidden_states(net, "input", (x, x + 1), t)
    np.testing.assert_array_equal(states, np.hstack([flat(x), flat(x + 1)]))


def test_nothing_changes(data):
    x, t = data
    np.random.seed(0)
    before = np.random.get_state()[1:3]
    net = Contract()
    weights = chainer.serializers.DictionarySerializer()
    weights.save(net)
    weights = {key: np.copy(value) for key, value in weights.target.items()}
    names = set(vars(net)), set(vars(net.conv))
    np.random.seed(0)
    for layer in (0, 1, "two", "conv", "input"):
        hidden_states(net, layer, x, t)
    after = chainer.serializers.DictionarySerializer()
    after.save(net)
    for key, value in after.target.items():
        np.testing.assert_array_equal(value, weights[key])
    assert (set(vars(net)), set(vars(net.conv))) == names
    assert np.random.get_state()[2] == before[1]
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])


@pytest.mark.parametrize(
    "net,layer,message",
    [
        (Contract, 7, "Contract has no mixing point 7; it has 0, 1, 'two'"),
        (Plain, "convv", "Plain has no link 'convv'. Did you mean 'conv'"),
        (Contract, "three", "Contract has no link 'three'"),
    ],
)
def test_an_unknown_place_is_named(data, net, layer, message):
    with pytest.raises(ValueError, match=message):
        hidden_states(net(), layer, *data)


def test_a_place_that_is_not_passed_is_an_error(data):
    class Forgetful(Plain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.unused = L.Linear(3)

        def forward(self, x, *args, mixup_hidden=False, lam=1.0, layer_mix=None):
            y = super().forward(x)
            return (y, *args, *args) if mixup_hidden else y

    with pytest.raises(RuntimeError, match="did not call its link 'unused'"):
        hidden_states(Forgetful(), "unused", *data)
    with pytest.raises(RuntimeError, match="called mixup_data 0 times"):
        hidden_states(Forgetful(), 1, *data)


def test_a_state_without_a_row_a_sample_is_an_error(data):
    class Merging(chainer.Chain):
        def __init__(self):
            super().__init__(fc=L.Linear(2, 3))

        def forward(self, x):
            return F.sum(self.fc(x.reshape(-1, 2)), axis=0)

    with pytest.raises(ValueError, match=r"shape \(48, 3\), but there are 6"):
        hidden_states(Merging(), "fc", *data)
