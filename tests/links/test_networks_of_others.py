"""Networks that were not written for mixing, against steps written by hand.

Those of Chainer's examples (v7.8.1) are copies, smaller where noted: Copyright (c) 2015
Preferred Infrastructure, Inc. and Preferred Networks, Inc., MIT License. The others
are ChainerCV's, the SE-ResNets cut off after res3.

By hand means: the forward pass again, with the mixing written into it with Chainer's
own functions, and the weighted sum of two plain losses.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainercv.links import SegNetBasic, SEResNet50, SEResNeXt50

from chainer_mmix import ManifoldMixupClassifier, MixupPolicy
from chainer_mmix.links.layers import MixupLayers
from chainer_mmix.links.sequential import MixupSequential
from chainer_mmix.mixing import MixupDraw

N, RATE = 4, 0.01
LAM, PERM = 0.3, np.array([2, 0, 1, 3])


class MLP(chainer.Chain):
    """examples/mnist/train_mnist.py"""

    def __init__(self, n_units, n_out):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(None, n_units)
            self.l2 = L.Linear(None, n_units)
            self.l3 = L.Linear(None, n_out)

    def forward(self, x):
        h1 = F.relu(self.l1(x))
        h2 = F.relu(self.l2(h1))
        return self.l3(h2)


def mlp_by_hand(net, x, mix):
    h = F.relu(mix("l1", net.l1(mix("input", x))))
    return net.l3(F.relu(mix("l2", net.l2(h))))


def mlp_as_list(net):
    return [net.l1, F.relu, net.l2, F.relu, net.l3]


class Block(chainer.Chain):
    """examples/cifar/models/VGG.py"""

    def __init__(self, out_channels, ksize, pad=1):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(None, out_channels, ksize, pad=pad, nobias=True)
            self.bn = L.BatchNormalization(out_channels)

    def forward(self, x):
        h = self.conv(x)
        h = self.bn(h)
        return F.relu(h)


class VGG(chainer.Chain):
    """examples/cifar/models/VGG.py, with 8 to 16 channels and two stages of five"""

    def __init__(self, class_labels):
        super().__init__()
        with self.init_scope():
            self.block1_1 = Block(8, 3)
            self.block1_2 = Block(8, 3)
            self.block3_1 = Block(16, 3)
            self.block3_2 = Block(16, 3)
            self.block3_3 = Block(16, 3)
            self.fc1 = L.Linear(None, 16, nobias=True)
            self.bn_fc1 = L.BatchNormalization(16)
            self.fc2 = L.Linear(None, class_labels, nobias=True)

    def forward(self, x):
        h = self.block1_1(x)
        h = F.dropout(h, ratio=0.3)
        h = self.block1_2(h)
        h = F.max_pooling_2d(h, ksize=2, stride=2)

        h = self.block3_1(h)
        h = F.dropout(h, ratio=0.4)
        h = self.block3_2(h)
        h = F.dropout(h, ratio=0.4)
        h = self.block3_3(h)
        h = F.max_pooling_2d(h, ksize=2, stride=2)

        h = F.dropout(h, ratio=0.5)
        h = self.fc1(h)
        h = self.bn_fc1(h)
        h = F.relu(h)
        h = F.dropout(h, ratio=0.5)
        return self.fc2(h)


def vgg_by_hand(net, x, mix):
    def block(name, h):
        link = net[name]
        return mix(name, F.relu(link.bn(link.conv(h))))

    h = F.dropout(block("block1_1", mix("input", x)), 0.3)
    h = F.max_pooling_2d(block("block1_2", h), 2, 2)
    h = F.dropout(block("block3_1", h), 0.4)
    h = F.dropout(block("block3_2", h), 0.4)
    h = F.max_pooling_2d(block("block3_3", h), 2, 2)
    h = mix("bn_fc1", net.bn_fc1(net.fc1(F.dropout(h, 0.5))))
    return net.fc2(F.dropout(F.relu(h), 0.5))


def vgg_as_list(net):
    def dropout(ratio):
        return functools.partial(F.dropout, ratio=ratio)

    pool = functools.partial(F.max_pooling_2d, ksize=2, stride=2)
    return [
        *(net.block1_1, dropout(0.3), net.block1_2, pool),
        *(net.block3_1, dropout(0.4), net.block3_2, dropout(0.4), net.block3_3, pool),
        *(dropout(0.5), net.fc1, net.bn_fc1, F.relu, dropout(0.5), net.fc2),
    ]


def sequence_embed(embed, xs, dropout=0.0):
    """examples/text_classification/nets.py"""
    x_len = [len(x) for x in xs]
    x_section = np.cumsum(x_len[:-1])
    ex = embed(F.concat(xs, axis=0))
    ex = F.dropout(ex, ratio=dropout)
    return F.split_axis(ex, x_section, 0)


def block_embed(embed, x, dropout=0.0):
    """examples/text_classification/nets.py"""
    e = embed(x)
    e = F.dropout(e, ratio=dropout)
    e = F.transpose(e, (0, 2, 1))
    return e[:, :, :, None]


class TextClassifier(chainer.Chain):
    """examples/text_classification/nets.py; forward is its method predict"""

    def __init__(self, encoder, n_class, dropout=0.1):
        super().__init__()
        with self.init_scope():
            self.encoder = encoder
            self.output = L.Linear(encoder.out_units, n_class)
        self.dropout = dropout

    def forward(self, xs):
        concat_encodings = F.dropout(self.encoder(xs), ratio=self.dropout)
        return self.output(concat_encodings)


class RNNEncoder(chainer.Chain):
    """examples/text_classification/nets.py"""

    def __init__(self, n_layers, n_vocab, n_units, dropout=0.1):
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(n_vocab, n_units)
            self.encoder = L.NStepLSTM(n_layers, n_units, n_units, dropout)
        self.out_units = n_units
        self.dropout = dropout

    def forward(self, xs):
        exs = sequence_embed(self.embed, xs, self.dropout)
        last_h, _, _ = self.encoder(None, None, exs)
        return last_h[-1]


def rnn_text_by_hand(net, xs, mix):
    embedded = sequence_embed(net.encoder.embed, xs, 0.1)
    h = mix("encoder", net.encoder.encoder(None, None, embedded)[0][-1])
    return net.output(F.dropout(h, 0.1))


class CNNEncoder(chainer.Chain):
    """examples/text_classification/nets.py"""

    def __init__(self, n_layers, n_vocab, n_units, dropout=0.1):
        out_units = n_units // 3
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(n_vocab, n_units, ignore_label=-1)
            self.cnn_w3 = L.Convolution2D(
                n_units, out_units, ksize=(3, 1), stride=1, pad=(2, 0), nobias=True
            )
            self.cnn_w4 = L.Convolution2D(
                n_units, out_units, ksize=(4, 1), stride=1, pad=(3, 0), nobias=True
            )
            self.cnn_w5 = L.Convolution2D(
                n_units, out_units, ksize=(5, 1), stride=1, pad=(4, 0), nobias=True
            )
            self.mlp = TextMLP(n_layers, out_units * 3, dropout)
        self.out_units = out_units * 3
        self.dropout = dropout

    def forward(self, xs):
        x_block = chainer.dataset.convert.concat_examples(xs, padding=-1)
        ex_block = block_embed(self.embed, x_block, self.dropout)
        h_w3 = F.max(self.cnn_w3(ex_block), axis=2)
        h_w4 = F.max(self.cnn_w4(ex_block), axis=2)
        h_w5 = F.max(self.cnn_w5(ex_block), axis=2)
        h = F.concat([h_w3, h_w4, h_w5], axis=1)
        h = F.relu(h)
        h = F.dropout(h, ratio=self.dropout)
        return self.mlp(h)


class TextMLP(chainer.ChainList):
    """examples/text_classification/nets.py, class MLP"""

    def __init__(self, n_layers, n_units, dropout=0.1):
        super().__init__()
        for _ in range(n_layers):
            self.add_link(L.Linear(None, n_units))
        self.dropout = dropout

    def forward(self, x):
        for link in self.children():
            x = F.dropout(x, ratio=self.dropout)
            x = F.relu(link(x))
        return x


def cnn_text_by_hand(net, xs, mix):
    encoder = net.encoder
    x = chainer.dataset.convert.concat_examples(xs, padding=-1)
    e = F.dropout(mix("encoder/embed", encoder.embed(x)), 0.1)
    e = F.transpose(e, (0, 2, 1))[:, :, :, None]
    convolutions = encoder.cnn_w3, encoder.cnn_w4, encoder.cnn_w5
    h = F.relu(F.concat([F.max(conv(e), axis=2) for conv in convolutions], axis=1))
    h = F.dropout(h, 0.1)
    for k, linear in enumerate(encoder.mlp):
        h = F.relu(mix(f"encoder/mlp/{k}", linear(F.dropout(h, 0.1))))
    h = mix("encoder", mix("encoder/mlp", h))
    return net.output(F.dropout(h, 0.1))


class RNNForLM(chainer.Chain):
    """examples/ptb/train_ptb.py"""

    def __init__(self, n_vocab, n_units):
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(n_vocab, n_units)
            self.l1 = L.LSTM(n_units, n_units)
            self.l2 = L.LSTM(n_units, n_units)
            self.l3 = L.Linear(n_units, n_vocab)
        for param in self.params():
            param.array[...] = np.random.uniform(-0.1, 0.1, param.shape)

    def reset_state(self):
        self.l1.reset_state()
        self.l2.reset_state()

    def forward(self, x):
        h0 = self.embed(x)
        h1 = self.l1(F.dropout(h0))
        h2 = self.l2(F.dropout(h1))
        return self.l3(F.dropout(h2))


def lm_by_hand(net, x, mix):
    h = mix("embed", net.embed(x))
    h = mix("l1", net.l1(F.dropout(h)))
    h = mix("l2", net.l2(F.dropout(h)))
    return net.l3(F.dropout(h))


def lm_as_list(net):
    return [net.embed, F.dropout, net.l1, F.dropout, net.l2, F.dropout, net.l3]


def add_noise(device, h, sigma=0.2):
    """examples/dcgan/net.py"""
    if chainer.config.train:
        return h + sigma * device.xp.random.randn(*h.shape)
    return h


class Discriminator(chainer.Chain):
    """examples/dcgan/net.py, without its last two sizes"""

    def __init__(self, bottom_width=4, ch=8, wscale=0.02):
        w = chainer.initializers.Normal(wscale)
        super().__init__()
        with self.init_scope():
            self.c0_0 = L.Convolution2D(3, ch // 2, 3, 1, 1, initialW=w)
            self.c0_1 = L.Convolution2D(ch // 2, ch, 4, 2, 1, initialW=w)
            self.c1_0 = L.Convolution2D(ch, ch, 3, 1, 1, initialW=w)
            self.l4 = L.Linear(bottom_width * bottom_width * ch, 1, initialW=w)
            self.bn0_1 = L.BatchNormalization(ch, use_gamma=False)
            self.bn1_0 = L.BatchNormalization(ch, use_gamma=False)

    def forward(self, x):
        device = self.device
        h = add_noise(device, x)
        h = F.leaky_relu(add_noise(device, self.c0_0(h)))
        h = F.leaky_relu(add_noise(device, self.bn0_1(self.c0_1(h))))
        h = F.leaky_relu(add_noise(device, self.bn1_0(self.c1_0(h))))
        return self.l4(h)


def discriminator_by_hand(net, x, mix):
    noise = functools.partial(add_noise, net.device)
    h = noise(mix("input", x))
    h = F.leaky_relu(noise(mix("c0_0", net.c0_0(h))))
    h = F.leaky_relu(noise(mix("bn0_1", net.bn0_1(net.c0_1(h)))))
    h = F.leaky_relu(noise(mix("bn1_0", net.bn1_0(net.c1_0(h)))))
    return net.l4(h)


def senet(base):
    class Small(base):
        _blocks = {50: [2, 1, 1, 1]}  # noqa: RUF012

    net = Small(n_class=5)
    net.pick = "fc6"
    del net.res4, net.res5
    return net


def senet_by_hand(net, x, mix):
    h = mix("input", x)
    for name in ("conv1", "pool1", "res2", "res3", "pool5", "fc6"):
        part = net[name]
        if name.startswith("res"):
            for block in part.layer_names:
                h = mix(f"{name}/{block}", part[block](h))
        else:
            h = part(h)
        h = mix(name, h)
    return h


def senet_as_list(net):
    return [net[name] for name in net.layer_names[:-1]]  # the last is softmax


def segnet_by_hand(net, x, mix):
    h = F.local_response_normalization(mix("input", x), 5, 1, 1e-4 / 5.0, 0.75)
    indices = []
    for k in (1, 2, 3, 4):
        h = mix(f"conv{k}_bn", net[f"conv{k}_bn"](net[f"conv{k}"](h)))
        h, index = F.max_pooling_2d(F.relu(h), 2, 2, return_indices=True)
        indices.append(index)
    for k in (4, 3, 2, 1):
        height, width = h.shape[2:]
        h = F.upsampling_2d(h, indices.pop(), 2, 2, outsize=(2 * height, 2 * width))
        h = net[f"conv_decode{k}_bn"](net[f"conv_decode{k}"](h))
    return net.conv_classifier(h)


def labels(*shape, n_class=5):
    return np.random.RandomState(1).randint(0, n_class, shape).astype(np.int32)


def floats(*shape):
    return np.random.RandomState(2).randn(N, *shape)


def sentences():
    rng = np.random.RandomState(3)
    return [rng.randint(0, 9, n).astype(np.int32) for n in (3, 7, 5, 4)]


@dataclasses.dataclass
class Case:
    make: Callable
    by_hand: Callable
    x: object
    points: tuple[str, ...]
    as_list: Callable | None = None
    t: np.ndarray = dataclasses.field(default_factory=lambda: labels(N))
    lossfun: Callable = F.softmax_cross_entropy


CASES = {
    "mnist": Case(
        lambda: MLP(8, 5), mlp_by_hand, floats(6), ("input", "l1", "l2"), mlp_as_list
    ),
    "cifar": Case(
        lambda: VGG(5),
        vgg_by_hand,
        floats(3, 8, 8),
        ("input", "block1_1", "block3_3", "bn_fc1"),
        vgg_as_list,
    ),
    "text-rnn": Case(
        lambda: TextClassifier(RNNEncoder(2, 9, 6), 5),
        rnn_text_by_hand,
        sentences(),
        ("encoder",),
    ),
    "text-cnn": Case(
        lambda: TextClassifier(CNNEncoder(2, 9, 6), 5),
        cnn_text_by_hand,
        sentences(),
        ("encoder/embed", "encoder/mlp/0", "encoder/mlp", "encoder"),
    ),
    "ptb": Case(
        lambda: RNNForLM(9, 6),
        lm_by_hand,
        labels(N, n_class=9)[::-1].copy(),
        ("l2",),  # before it, the state of an earlier step leads around
        lm_as_list,
        labels(N, n_class=9),
    ),
    "dcgan": Case(
        Discriminator,
        discriminator_by_hand,
        floats(3, 8, 8),
        ("input", "c0_0", "bn1_0"),
        t=np.int32([[0], [1], [1], [0]]),
        lossfun=F.sigmoid_cross_entropy,
    ),
    "SEResNet": Case(
        lambda: senet(SEResNet50),
        senet_by_hand,
        floats(3, 32, 32),
        ("input", "res2/a", "res3"),
        senet_as_list,
    ),
    "SEResNeXt": Case(
        lambda: senet(SEResNeXt50),
        senet_by_hand,
        floats(3, 32, 32),
        ("res2",),
        senet_as_list,
    ),
    "SegNet": Case(
        lambda: SegNetBasic(5),
        segnet_by_hand,
        floats(3, 16, 16),
        ("input", "conv1_bn"),  # behind it, the indices of pooling lead around
        t=labels(N, 16, 16),
    ),
}


def wrapped_by_name(case, net, point):
    return MixupLayers(net, [point])


def wrapped_as_list(case, net, point):
    layers = case.as_list(net)
    k = 0 if point == "input" else layers.index(net[point]) + 1
    return MixupSequential(*((layer, i == k) for i, layer in enumerate(layers)))


def parameters():
    for name, case in CASES.items():
        for point in case.points:
            yield pytest.param(wrapped_by_name, case, point, id=f"{name}-{point}")
            if case.as_list and "/" not in point:
                yield pytest.param(
                    wrapped_as_list, case, point, id=f"{name}-{point}-list"
                )


class FixedPolicy(MixupPolicy):
    def draw(self, batch_size, points=()):
        (point,) = points
        return MixupDraw(point, LAM, PERM)


def step_by_hand(case, net, point):
    def mix(name, h):
        if name != point:
            return h
        h = chainer.as_variable(h)
        return LAM * h + (1 - LAM) * h[PERM]

    y = case.by_hand(net, case.x, mix)
    loss_a, loss_b = case.lossfun(y, case.t), case.lossfun(y, case.t[PERM])
    loss = LAM * loss_a + (1 - LAM) * loss_b
    net.cleargrads()
    loss.backward()
    for param in net.params():
        param.array -= RATE * param.grad
    return loss.array


def state(net):
    """Parameters and batch statistics, by name."""
    arrays = {name: param.array for name, param in net.namedparams()}
    for name, link in net.namedlinks():
        if isinstance(link, L.BatchNormalization):
            arrays[f"{name}/avg_mean"] = link.avg_mean
            arrays[f"{name}/avg_var"] = link.avg_var
    return arrays


@pytest.mark.parametrize(("wrap", "case", "point"), list(parameters()))
def test_a_step_equals_the_one_by_hand(wrap, case, point):
    with chainer.using_config("dtype", np.float64):
        np.random.seed(0)
        net = case.make()
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            net(case.x)  # fixes the shapes of parameters, and the state of an LSTM
        other = copy.deepcopy(net)
        before = {name: array.copy() for name, array in state(net).items()}

        model = ManifoldMixupClassifier(
            wrap(case, net, point),
            lossfun=case.lossfun,
            accfun=None,
            policy=FixedPolicy(),
        )
        optimizer = chainer.optimizers.SGD(RATE).setup(model)
        np.random.seed(1)  # for dropout and noise
        optimizer.update(model, case.x, case.t)
        np.random.seed(1)
        expected = step_by_hand(case, other, point)

    np.testing.assert_allclose(model.loss.array, expected, rtol=1e-10)
    after = state(net)
    for name, array in state(other).items():
        np.testing.assert_allclose(after[name], array, rtol=1e-8, atol=1e-10)
        assert not np.array_equal(array, before[name]), f"{name} has not changed"
