"""Layers of a list are named by their positions."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix import ManifoldMixupClassifier, MixupLayers, MixupSequential
from chainer_mmix.analysis.hidden import hidden_states
from chainer_mmix.links.names import links_of


def five():
    return chainer.Sequential(*(L.Linear(3, 3) for _ in range(5)))


class Head(chainer.Chain):
    def __init__(self, head):
        super().__init__()
        with self.init_scope():
            self.first = L.Linear(3, 3)
            self.head = head

    def forward(self, x):
        return self.head(self.first(x))


@pytest.mark.parametrize("position", [0, 1, 2, 3, np.int64(4), -2])
def test_a_position_is_that_of_the_list(position):
    net = five()
    points = MixupLayers(net, ["input", position]).mixup_layers
    assert links_of(net)[points[1]] is net[int(position)]
    assert points == ("input", f"[{position % 5}]")


@pytest.mark.parametrize("position", range(5))
def test_the_state_that_is_mixed_is_the_one_at_the_position(position):
    net, x = five(), np.eye(3, dtype=np.float32)
    model = ManifoldMixupClassifier(MixupLayers(net, [position]), seed=0)
    model.cleargrads()
    draw = model.next_draw(x, np.arange(3, dtype=np.int32))
    h = x
    for layer in net[: position + 1]:
        h = layer(h)
    h = float(draw.lam) * h.array + (1 - float(draw.lam)) * h.array[draw.perm]
    for layer in net[position + 1 :]:
        h = layer(h)
    model.compute_loss(draw, x, np.arange(3, dtype=np.int32))
    np.testing.assert_allclose(model.y.array, chainer.as_array(h), rtol=1e-5)


def test_a_number_of_chainers_that_is_not_the_position():
    net = five()
    assert dict(net.namedlinks())["/1"] is net[4]
    with pytest.raises(ValueError, match=r"'1' .* at '\[4\]'.*write '\[4\]'.*'\[1\]'"):
        MixupLayers(net, ["input", "1"])
    with pytest.raises(ValueError, match=r"write 'head\[4\]'.*'head\[1\]' for the"):
        MixupLayers(Head(net), ["head/1"])
    assert MixupLayers(net, ["0"]).mixup_layers == ("0",)  # where both agree
    assert MixupLayers(Head(net), ["head[1]"]).mixup_layers == ("head[1]",)


def test_lists_in_lists_and_functions_between():
    inner = chainer.Sequential(L.Linear(3, 3), F.relu, L.Linear(3, 3), L.Linear(3, 3))
    net = chainer.Sequential(L.Linear(3, 3), F.relu, inner, Head(five()))
    links = links_of(net)
    assert links["[2][3]"] is inner[3]
    assert links["[3]/head[2]"] is net[3].head[2]
    assert len(links) == 1 + 4 + 1 + 7
    with pytest.raises(ValueError, match=r"layer 1 of .* is a function.*'\[0\]'"):
        MixupLayers(net, [1])
    with pytest.raises(ValueError, match="no layer 4, only 4 layers"):
        MixupLayers(net, [4])
    with pytest.raises(TypeError, match=r"0 is not a name.*and Head is none"):
        MixupLayers(Head(net), [0])


def test_suggest_proposes_what_can_be_passed_on(capsys):
    net = chainer.Sequential(
        *(L.Linear(3, 8), F.relu, L.Linear(8, 8), F.relu, L.Linear(8, 2))
    )
    names = MixupLayers.suggest(net, np.zeros((2, 3), np.float32))
    assert names == ["input", "[0]", "[2]"]
    assert MixupLayers(net, names).mixup_layers == tuple(names)
    assert "[4]" in capsys.readouterr().out


def test_a_list_of_the_house_and_hidden_states():
    layers = [L.Linear(3, 3) for _ in range(3)]
    net = MixupSequential(*((layer, True) for layer in layers))
    x = np.eye(3, dtype=np.float32)
    assert links_of(net)["[1]"] is layers[1]
    for one in (net, MixupLayers(net, [0])):
        states = hidden_states(one, "[1]", x, np.zeros(3, np.int32))
        np.testing.assert_allclose(states, layers[1](layers[0](x)).array, rtol=1e-5)
