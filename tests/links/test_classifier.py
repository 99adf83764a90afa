import copy
import dataclasses
import functools
import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix import (
    ManifoldMixupClassifier,
    MixupLayers,
    MixupPolicy,
    MixupSequential,
    mixup_data,
)
from chainer_mmix.mixing import softmax_binary_cross_entropy


class Net(chainer.Chain):
    """As for the original Chainer implementation, with its points listed."""

    mixup_layers = (0, 1, 2)
    n_in, n_class = 4, 3

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(self.n_in, 5)
            self.bn = L.BatchNormalization(5)
            self.l2 = L.Linear(5, self.n_class)
        self.calls = []

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        self.calls.append((mixup_hidden, layer_mix))
        h = x
        if mixup_hidden and layer_mix in (None, 0):
            h, a, b = mixup_data(h, target, lam)
        h = F.tanh(self.l1(h))
        if mixup_hidden and layer_mix == 1:
            h, a, b = mixup_data(h, target, lam)
        h = self.bn(h)
        if mixup_hidden and layer_mix == 2:
            h, a, b = mixup_data(h, target, lam)
        y = self.l2(h)
        return (y, a, b) if mixup_hidden else y


class Unlisted(Net):
    mixup_layers = None


def batch(n=8, seed=0):
    rng = np.random.RandomState(seed)
    return rng.randn(n, 4).astype(np.float32), rng.randint(0, 3, n).astype(np.int32)


def observe(model, *args):
    reporter = chainer.Reporter()
    reporter.add_observer("main", model)
    with reporter:
        model(*args)
    return reporter.observation


def float64_step(net, x, t, lam, perm, layer):
    """Loss of the published algorithm for Net, and its gradient for the last layer."""
    p = {k: v.array.astype(np.float64) for k, v in net.namedparams()}
    onehot = np.eye(3)[t]

    def mixed(h):
        return lam * h + (1 - lam) * h[perm]

    h = x.astype(np.float64)
    h = mixed(h) if layer == 0 else h
    h = np.tanh(h @ p["/l1/W"].T + p["/l1/b"])
    h = mixed(h) if layer == 1 else h
    h = (h - h.mean(0)) / np.sqrt(h.var(0) + net.bn.eps)
    h = h * p["/bn/gamma"] + p["/bn/beta"]
    h = mixed(h) if layer == 2 else h
    y = h @ p["/l2/W"].T + p["/l2/b"]
    soft = np.exp(y) / np.exp(y).sum(1, keepdims=True)
    target = lam * onehot + (1 - lam) * onehot[perm]
    loss = -(target * np.log(soft)).sum(1).mean()
    hits = target[np.arange(len(x)), y.argmax(1)]
    return loss, (soft - target).T @ h / len(x), hits.mean()


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_step_equals_the_published_algorithm_in_float64(layer):
    net = Net()
    model = ManifoldMixupClassifier(net, mixup_alpha=1, layer_mix=layer, seed=layer)
    x, t = batch()
    observation = observe(model, x, t)
    loss, gradient, accuracy = float64_step(
        net, x, t, model.draw.lam, model.draw.perm, layer
    )
    model.cleargrads()
    model.loss.backward()
    np.testing.assert_allclose(model.loss.array, loss, rtol=1e-5)
    np.testing.assert_allclose(net.l2.W.grad, gradient, rtol=1e-4, atol=1e-6)
    assert float(observation["main/accuracy"].array) == pytest.approx(accuracy)
    assert observation["main/lam"] == model.draw.lam
    assert float(observation["main/loss"].array) == pytest.approx(loss, rel=1e-5)


def test_lambda_per_sample():
    net = Net()
    policy = MixupPolicy(1, layer_mix=0, per="sample", seed=0)
    model = ManifoldMixupClassifier(net, policy=policy)
    x, t = batch()
    loss = model(x, t)
    lam = model.draw.lam.astype(np.float64)[:, None]
    expected, _, _ = float64_step(net, x, t, lam, model.draw.perm, 0)
    np.testing.assert_allclose(loss.array, expected, rtol=1e-5)


def test_evaluation_is_the_plain_classifier():
    net = Net()
    model = ManifoldMixupClassifier(net, seed=0)
    x, t = batch()
    model(x, t)
    statistics = net.bn.avg_mean.copy(), net.bn.avg_var.copy()
    global_state = np.random.get_state()[1].copy()
    rng = model.policy._rng.bit_generator.state
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        ours = observe(model, x, t)
        theirs = observe(L.Classifier(net), x, t)
    assert ours.keys() == theirs.keys() == {"main/loss", "main/accuracy"}
    for key in ours:
        np.testing.assert_array_equal(ours[key].array, theirs[key].array)
    assert net.calls[-1] == (False, None) and model.draw is None
    np.testing.assert_array_equal(net.bn.avg_mean, statistics[0])
    np.testing.assert_array_equal(net.bn.avg_var, statistics[1])
    np.testing.assert_array_equal(np.random.get_state()[1], global_state)
    assert model.policy._rng.bit_generator.state == rng


@pytest.mark.parametrize("off", [{"mixup_alpha": 0}, {"mixup_hidden": False}])
def test_without_mixing_it_trains_as_the_plain_classifier(off):
    net = Net()
    model = ManifoldMixupClassifier(net, **off)
    x, t = batch()
    observation = observe(model, x, t)
    assert net.calls == [(False, None)] and model.draw is None
    assert observation["main/lam"] == 1
    expected = L.Classifier(net)(x, t)
    np.testing.assert_array_equal(model.loss.array, expected.array)


def test_layers_are_drawn_from_those_of_the_link():
    net = Net()
    model = ManifoldMixupClassifier(net, seed=0)
    for _ in range(30):
        model(*batch(2))
    assert set(net.calls) == {(True, 0), (True, 1), (True, 2)}
    net.default_layer_mix = (1,)
    net.calls.clear()
    for _ in range(10):
        model(*batch(2))
    assert set(net.calls) == {(True, 1)}


@pytest.mark.parametrize(("layer_mix", "drawn"), [(2, {2}), ([0, 2], {0, 2})])
def test_layer_mix(layer_mix, drawn):
    net = Net()
    model = ManifoldMixupClassifier(net, layer_mix=layer_mix, seed=0)
    for _ in range(20):
        model(*batch(2))
    assert {layer for _, layer in net.calls} == drawn


def test_a_link_that_lists_nothing_chooses_itself():
    net = Unlisted()
    model = ManifoldMixupClassifier(net, seed=0)
    model(*batch())
    assert net.calls == [(True, None)] and model.draw.layer_mix is None
    model = ManifoldMixupClassifier(net, layer_mix=1)
    model(*batch())
    assert net.calls[-1] == (True, 1)


def trained_and_evaluated(model, *args, **kwargs):
    """What a call reports in training and in evaluation."""
    reports = []
    for train in (True, False):
        reporter = chainer.Reporter()
        reporter.add_observer("main", model)
        with reporter, chainer.using_config("train", train):
            model(*args, **kwargs)
        values = {
            k: float(chainer.as_array(v)) for k, v in reporter.observation.items()
        }
        reports.append(values)
    return reports


def linear(n_out):
    """A predictor that mixes its input and is linear, so that y is easily had."""

    class Linear(L.Linear):
        def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
            if mixup_hidden:
                x, a, b = mixup_data(x, target, lam)
            y = super().forward(x)
            return (y, a, b) if mixup_hidden else y

    return Linear(4, n_out)


def test_regression():
    net, (x, _) = linear(1), batch()
    model = ManifoldMixupClassifier(
        net, mixup_alpha=1, lossfun=F.mean_squared_error, accfun=None, seed=0
    )
    t = np.random.RandomState(1).rand(8, 1).astype(np.float32)
    model(x, t)
    lam, perm = model.draw.lam, model.draw.perm
    train, evaluation = trained_and_evaluated(model, x, t)
    assert train.keys() == {"main/loss", "main/lam"}
    assert evaluation == {"main/loss": pytest.approx(((net(x).array - t) ** 2).mean())}
    model = ManifoldMixupClassifier(
        net, mixup_alpha=1, lossfun=F.mean_squared_error, accfun=None, seed=0
    )
    loss = model(x, t).array
    error = net(lam * x + (1 - lam) * x[perm]).array - (lam * t + (1 - lam) * t[perm])
    assert loss == pytest.approx((error**2).mean(), rel=1e-5)
    with pytest.raises(TypeError, match=r"no accuracy .* accfun=None and a lossfun"):
        ManifoldMixupClassifier(net, lossfun=F.mean_squared_error)(x, t)


@pytest.mark.parametrize(
    "lossfun", [F.softmax_cross_entropy, softmax_binary_cross_entropy]
)
def test_one_hot_targets_are_as_good_as_labels(lossfun):
    x, t = batch()
    net, reports = Net(), []
    for target in (t, np.eye(3, dtype=np.float32)[t]):
        model = ManifoldMixupClassifier(copy.deepcopy(net), lossfun=lossfun, seed=0)
        reports.append(trained_and_evaluated(model, x, target))
    for labels, one_hot in zip(*reports, strict=True):
        assert labels == pytest.approx(one_hot, rel=1e-5)


def test_label_smoothing_is_for_training_with_and_without_mixing():
    x, t = batch()
    net = linear(3)
    y = net(x).array.astype(np.float64)
    log_p = y - np.log(np.exp(y).sum(1, keepdims=True))
    for alpha in (0, 1e-9):  # lambda is 0 or 1
        model = ManifoldMixupClassifier(
            net, mixup_alpha=alpha, label_smoothing=0.3, seed=0
        )
        train, evaluation = trained_and_evaluated(model, x, t)
        soft = 0.7 * np.eye(3)[t] + 0.1
        assert train["main/loss"] == pytest.approx(-(soft * log_p).sum(1).mean())
        assert evaluation["main/loss"] == pytest.approx(-log_p[np.arange(8), t].mean())
    with pytest.raises(ValueError, match=r"label_smoothing .* not -0.1"):
        ManifoldMixupClassifier(net, label_smoothing=-0.1)


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
def test_multi_label_targets(per):
    x, _ = batch()
    t = np.random.RandomState(0).randint(0, 2, (8, 5)).astype(np.int32)
    net = linear(5)
    model = ManifoldMixupClassifier(
        net,
        policy=MixupPolicy(1, per=per, seed=0),
        lossfun=F.sigmoid_cross_entropy,
        accfun=F.binary_accuracy,
    )
    loss = model(x, t).array
    lam = np.reshape(np.float32(model.draw.lam), (-1, 1))
    perm = model.draw.perm
    p = 1 / (1 + np.exp(-net(lam * x + (1 - lam) * x[perm]).array))
    soft = lam * t + (1 - lam) * t[perm]
    expected = -(soft * np.log(p) + (1 - soft) * np.log(1 - p)).mean()
    assert loss == pytest.approx(expected, rel=1e-5)
    hits = (p >= 0.5) == t
    other = (p >= 0.5) == t[perm]
    accuracy = (lam * hits + (1 - lam) * other).mean()
    assert model.accuracy.array == pytest.approx(accuracy, rel=1e-5)


class TwoInputs(chainer.Chain):
    def __init__(self):
        super().__init__(l1=L.Linear(4, 5), l2=L.Linear(2, 5), l3=L.Linear(5, 3))

    def forward(self, a, b, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        h = self.l1(a) + self.l2(b)
        if mixup_hidden:
            h, target, other = mixup_data(h, target, lam)
        y = self.l3(F.tanh(h))
        return (y, target, other) if mixup_hidden else y


def test_several_inputs_by_place_and_by_name():
    x, t = batch()
    z = np.random.RandomState(3).randn(8, 2).astype(np.float32)
    net, reports = TwoInputs(), []
    for key, args, kwargs in (
        (-1, (x, z, t), {}),
        (0, (t, x, z), {}),
        ("t", (), {"a": x, "b": z, "t": t}),
        ("t", (x,), {"b": z, "t": t}),
    ):
        model = ManifoldMixupClassifier(net, mixup_alpha=1, seed=0, label_key=key)
        reports.append(trained_and_evaluated(model, *args, **kwargs))
        plain = L.Classifier(net, label_key=key)
        assert reports[-1][1] == trained_and_evaluated(plain, *args, **kwargs)[1]
    assert reports[0] == reports[1] == reports[2] == reports[3]
    draw = MixupPolicy(1, seed=0).draw(8)
    h = net.l1(x).array + net.l2(z).array
    y = net.l3(np.tanh(draw.lam * h + (1 - draw.lam) * h[draw.perm])).array
    log_p, n = y - np.log(np.exp(y).sum(1, keepdims=True)), np.arange(8)
    loss = -draw.lam * log_p[n, t] - (1 - draw.lam) * log_p[n, t[draw.perm]]
    assert reports[0][0]["main/loss"] == pytest.approx(loss.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("t", "label_key is 't', but the call names no arguments"),
        (2, "has 2 positional arguments and names none"),
    ],
)
def test_a_call_without_the_target_is_named(key, message):
    model = ManifoldMixupClassifier(Net(), label_key=key)
    with pytest.raises(ValueError, match=message):
        model(*batch())


class Named(Net):
    """As the first network, its points named."""

    mixup_layers = ("input", "l1", "bn")

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        if layer_mix is not None:
            layer_mix = self.mixup_layers.index(layer_mix)
        return super().forward(x, target, mixup_hidden, lam, layer_mix)


def test_an_integer_is_an_index_into_names():
    for layer_mix, drawn in (([0, "bn"], ("input", "bn")), (1, ("l1",))):
        model = ManifoldMixupClassifier(Named(), layer_mix=layer_mix, seed=0)
        assert model.points == drawn
        model(*batch())
        assert model.draw.layer_mix in drawn
    with pytest.raises(ValueError, match="no mixing point 3; it has 'input', 'l1'"):
        ManifoldMixupClassifier(Named(), layer_mix=3)


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_cutmix_of_a_hidden_map_weighs_the_loss_by_what_is_left(per):
    class Maps(chainer.Chain):
        mixup_layers = (1,)

        def __init__(self):
            super().__init__(conv=L.Convolution2D(1, 3, 3, pad=1))

        def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
            h = self.conv(x)
            if mixup_hidden:
                h, a, b = mixup_data(h, target, lam)
            y = F.average(h, axis=(2, 3))
            return (y, a, b) if mixup_hidden else y

    net = Maps()
    policy = MixupPolicy(0, cutmix_alpha=1, per=per, seed=3)
    model = ManifoldMixupClassifier(net, policy=policy)
    x, (_, t) = np.random.RandomState(0).randn(8, 1, 6, 6).astype("f"), batch()
    loss = model(x, t).array
    drawn, draw = MixupPolicy(0, cutmix_alpha=1, per=per, seed=3).draw(8), model.draw
    h, size = net.conv(x).array, 6
    logits, shares = [], []
    for n in range(8):
        lam = np.broadcast_to(drawn.lam, 8)[n]
        center = np.broadcast_to(drawn.center, (8, 3))[n]
        half = int(size * np.sqrt(1 - lam)) // 2
        at = [np.arange(size) - int(size * c) for c in center[:2]]
        rows, columns = ((-half <= a) & (a < half) for a in at)
        box = rows[:, None] & columns
        logits.append(np.where(box, h[draw.perm[n]], h[n]).mean((1, 2)))
        shares.append(1 - box.mean())
    np.testing.assert_allclose(draw.lam, shares if per == "sample" else shares[0])
    log_p, n = np.array(logits), np.arange(8)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    shares = np.array(shares)
    expected = -shares * log_p[n, t] - (1 - shares) * log_p[n, t[draw.perm]]
    assert loss == pytest.approx(expected.mean(), rel=1e-5)


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_a_loss_of_one_value_a_sample_is_averaged(per):
    def lossfun(y, t):
        return F.softmax_cross_entropy(y, t, reduce="no")

    net, (x, t) = linear(3), batch()
    losses = []
    for function in (lossfun, F.softmax_cross_entropy):
        policy = MixupPolicy(1, per=per, prob=0.5, seed=0)
        model = ManifoldMixupClassifier(net, policy=policy, lossfun=function)
        losses.append([float(model(x, t).array) for _ in range(6)])
        with chainer.using_config("train", False):
            losses[-1].append(float(model(x, t).array))
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_outputs_and_targets_of_several_parts_are_named():
    class Two(chainer.Chain):
        def forward(self, x):
            return x, x

    x, t = batch()
    with pytest.raises(TypeError, match="returned a tuple, and softmax_cross_entropy"):
        ManifoldMixupClassifier(Two(), mixup_hidden=False)(x, t)
    with pytest.raises(TypeError, match="target must be one array, not tuple"):
        ManifoldMixupClassifier(Net())(x, (t, t))


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
@pytest.mark.parametrize(
    ("lossfun", "ignored"),
    [
        (F.softmax_cross_entropy, -1),
        (functools.partial(F.softmax_cross_entropy, ignore_label=255), 255),
        (lambda y, t: F.softmax_cross_entropy(y, t, reduce="no"), -1),
    ],
)
def test_the_accuracy_leaves_out_what_the_loss_leaves_out(lossfun, ignored, per):
    x, t = batch()
    t[::2] = ignored
    net = linear(3)
    policy = MixupPolicy(1, per=per, seed=0)
    model = ManifoldMixupClassifier(net, policy=policy, lossfun=lossfun)
    train, evaluation = trained_and_evaluated(model, x, t)
    draw = MixupPolicy(1, per=per, seed=0).draw(8)
    lam = np.broadcast_to(draw.lam, 8)
    column = lam[:, None].astype(np.float32)
    pred = net(column * x + (1 - column) * x[draw.perm]).array.argmax(1)
    expected = 0
    for labels, share in ((t, lam), (t[draw.perm], 1 - lam)):
        counts = labels != ignored
        expected += (share * (pred == labels))[counts].sum() / counts.sum()
    assert train["main/accuracy"] == pytest.approx(expected)
    pred = net(x).array.argmax(1)
    assert evaluation["main/accuracy"] == pytest.approx((pred == t)[1::2].mean())


def test_an_accuracy_that_names_what_it_leaves_out_is_left_alone():
    x, t = batch()
    t[0] = 0
    accfun = functools.partial(F.accuracy, ignore_label=0)
    model = ManifoldMixupClassifier(linear(3), accfun=accfun)
    model.lossfun = functools.partial(F.softmax_cross_entropy, ignore_label=1)
    _, evaluation = trained_and_evaluated(model, x, t)
    pred = model.predictor(x).array.argmax(1)
    assert evaluation["main/accuracy"] == pytest.approx((pred == t)[t != 0].mean())


def test_an_accuracy_of_ones_own_is_weighted():
    x, t = batch()
    onehot = np.eye(3, dtype=np.float32)[t]

    def accfun(y, t):
        return F.accuracy(y["class"], chainer.as_array(t).argmax(1))

    def lossfun(y, t):
        return F.softmax_cross_entropy(y["class"], t)

    class Tasks(Net):
        def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
            outputs = super().forward(x, target, mixup_hidden, lam, layer_mix)
            if mixup_hidden:
                return {"class": outputs[0]}, *outputs[1:]
            return {"class": outputs}

    model = ManifoldMixupClassifier(
        Tasks(), mixup_alpha=1, lossfun=lossfun, accfun=accfun, seed=0
    )
    model(x, onehot)
    pred, lam = model.y["class"].array.argmax(1), model.draw.lam
    expected = lam * (pred == t) + (1 - lam) * (pred == t[model.draw.perm])
    assert float(model.accuracy.array) == pytest.approx(expected.mean())


def test_a_draw_and_its_loss_are_the_forward():
    x, t = batch()
    net = Net()
    models = [
        ManifoldMixupClassifier(net, True, layer_mix=[0, 2], seed=0) for _ in "ab"
    ]
    for _ in range(5):
        forward = models[0](x, t).array
        draw = models[1].next_draw(x, t)
        loss = models[1].compute_loss(draw, x, t).array
        assert loss == forward and models[1].draw is draw
        assert draw.layer_mix == models[0].draw.layer_mix
    assert models[1].compute_loss(None, x, t).array == L.Classifier(net)(x, t).array
    with chainer.using_config("train", False):
        assert models[1].next_draw(x, t) is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        draw.lam = 0.5


def test_two_calls_in_a_step_are_both_in_the_log():
    model, reporter = ManifoldMixupClassifier(Net(), seed=0), chainer.Reporter()
    reporter.add_observer("main", model)
    with reporter:
        losses = [float(model(*batch(seed=k)).array) for k in range(3)]
    seen = reporter.observation
    keys = "main/loss_1", "main/loss_2", "main/loss"
    assert [float(seen[key].array) for key in keys] == losses
    assert {"main/lam_2", "main/accuracy_1"} < seen.keys() and len(seen) == 9
    with reporter.scope({}):  # the next step
        model(*batch())
        assert reporter.observation.keys() == {"main/loss", "main/accuracy", "main/lam"}


def test_a_classifier_without_a_name_in_the_log_is_told_how_to_get_one():
    with chainer.Reporter(), pytest.raises(KeyError, match=r"reporter\.add_observer"):
        ManifoldMixupClassifier(Net())(*batch())


class Both(chainer.Chain):
    """Two losses over one predictor."""

    def __init__(self, net, classifier):
        super().__init__()
        with self.init_scope():
            self.first = classifier(net)
            self.second = classifier(net)

    def forward(self, x, t):
        return self.first(x, t) + self.second(x, t)


class BothInAList(chainer.ChainList):
    def __init__(self, net, classifier):
        super().__init__(classifier(net), classifier(net))

    def forward(self, x, t):
        return self[0](x, t) + self[1](x, t)


@pytest.mark.parametrize("both", [Both, BothInAList])
def test_a_predictor_of_two_classifiers_is_updated_once_a_step(both):
    nets, optimizers = [], []
    for kind in (both, None):
        net = Net()
        for (_, p), (_, own) in zip(
            sorted(net.namedparams()),
            sorted((nets[0] if nets else net).namedparams()),
            strict=True,
        ):
            p.array[...] = own.array
        nets.append(net)
        if kind:
            target = kind(net, lambda net: ManifoldMixupClassifier(net, seed=0))
        else:
            target = net
        optimizer = chainer.optimizers.MomentumSGD(0.1).setup(target)
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.1))
        optimizers.append(optimizer)
    classifiers = [ManifoldMixupClassifier(nets[1], seed=0) for _ in "ab"]
    for _ in range(3):
        optimizers[0].update(optimizers[0].target, *batch())
        optimizers[1].update(lambda *args: sum(c(*args) for c in classifiers), *batch())
    assert nets[0].l1.W.update_rule.t == 3
    for a, b in zip(nets[0].params(), nets[1].params(), strict=True):
        np.testing.assert_array_equal(a.array, b.array)


def test_a_batch_that_is_not_mixed_trains_as_the_plain_classifier():
    net, policy = Net(), MixupPolicy(1, prob=0.5, seed=0)
    model = ManifoldMixupClassifier(net, policy=policy)
    mixed = []
    for _ in range(20):
        observation = observe(model, *batch())
        mixed.append(model.draw is not None)
        assert mixed[-1] or observation["main/lam"] == 1
        assert net.calls[-1][0] == mixed[-1]
    assert 3 < sum(mixed) < 17


@pytest.mark.parametrize("per", ["batch", "pair"])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", ["accfun", "lossfun"])
@pytest.mark.parametrize("is_soft", [False, True])
def test_a_function_that_returns_several_values_is_named(is_soft, name, train, per):
    def several(y, t):
        return F.precision(y, NEXT)

    policy = MixupPolicy(1, per=per, seed=0)
    model = ManifoldMixupClassifier(RecurrentByHand(), policy=policy, **{name: several})
    with (
        chainer.using_config("train", train),
        pytest.raises(TypeError, match=r"several at .* returned a tuple, but one"),
    ):
        model(WORDS[0], np.eye(3, dtype=np.float32)[NEXT] if is_soft else NEXT)


class Recurrent(chainer.Chain):
    """Two layers with a state, as in Chainer's ptb example."""

    def __init__(self):
        super().__init__(l1=L.LSTM(4, 5), l2=L.LSTM(5, 6), fc=L.Linear(6, 3))
        self.constant = chainer.Variable(np.ones((8, 1), np.float32))

    def forward(self, x):
        return self.fc(self.l2(self.l1(x * self.constant)))


class RecurrentByHand(Recurrent):
    mixup_layers = ("input", "l1", "l2")

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        a = b = None
        h = x * self.constant
        for name, link in ("input", None), ("l1", self.l1), ("l2", self.l2):
            h = link(h) if link else h
            if mixup_hidden and layer_mix == name:
                h, a, b = mixup_data(h, target, lam)
        return (self.fc(h), a, b) if mixup_hidden else self.fc(h)


def recurrent_as_list():
    return MixupSequential(
        (L.LSTM(4, 5), True), (L.LSTM(5, 6), True), (L.Linear(6, 3), True)
    )


RECURRENT = {
    "MixupLayers": lambda: MixupLayers(Recurrent(), ["input", "l1", "l2"]),
    "MixupSequential": recurrent_as_list,
    "mixup_data": RecurrentByHand,
}
WORDS = np.random.RandomState(0).randn(3, 8, 4).astype(np.float32)
NEXT = np.arange(8, dtype=np.int32) % 3


@pytest.mark.parametrize("make", RECURRENT.values(), ids=RECURRENT)
@pytest.mark.parametrize("point", [0, 1, 2])
@pytest.mark.parametrize("before", ["mixed", "unmixed", "truncated"])
def test_states_of_other_partners_lead_around_all_points_but_the_last(
    make, point, before
):
    net = make()
    layer = net.mixup_layers[point]
    model = ManifoldMixupClassifier(net, mixup_alpha=1, layer_mix=layer, seed=0)
    first = None if before == "unmixed" else model.next_draw(WORDS[0], NEXT)
    loss = model.compute_loss(first, WORDS[0], NEXT)
    if before == "truncated":
        loss.backward()
        loss.unchain_backward()
    if point == 2:
        model(WORDS[1], NEXT)
        return
    with pytest.raises(RuntimeError, match=r"carries its state \(.*/c, .*/h\) over"):
        model(WORDS[1], NEXT)


class WithMemory(chainer.Chain):
    """Keeps as many rows as a batch has samples, which belong to none of them."""

    def __init__(self, keep):
        super().__init__(l1=L.Linear(4, 5), fc=L.Linear(10, 3))
        self.keep = keep
        self.memory = keep(np.eye(8, 5, dtype=np.float32))

    def forward(self, x):
        h = F.relu(self.l1(x))
        memory = chainer.as_variable(self.memory)
        read = F.softmax(h @ memory.T) @ memory
        self.memory = self.keep(0.9 * memory.array + 0.1 * h.array.mean(axis=0))
        return self.fc(F.concat([h, read]))


@pytest.mark.parametrize("keep", [chainer.Variable, np.asarray])
def test_a_memory_of_as_many_rows_may_be_kept_as_an_array(keep):
    net = MixupLayers(WithMemory(keep), ["input"])
    model = ManifoldMixupClassifier(net, mixup_alpha=1, seed=0)
    for _ in range(2):
        if isinstance(net.net.memory, np.ndarray):
            model(WORDS[0], NEXT)
            continue
        with pytest.raises(RuntimeError, match="such as a memory, may be kept as an a"):
            model(WORDS[0], NEXT)


class StateByHand(chainer.Chain):
    """Keeps the states of the layers of an NStepLSTM itself, as (layers, N, units)."""

    mixup_layers = ("input", "rnn")

    def __init__(self, keep):
        super().__init__(rnn=L.NStepLSTM(2, 4, 5, 0.0), fc=L.Linear(5, 3))
        self.keep = keep
        self.reset_state()

    def reset_state(self):
        self.state = self.keep(None, None)

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        a, b, h = None, None, chainer.as_variable(x)
        if layer_mix == "input":
            h, a, b = mixup_data(h, target, lam)
        state = self.state.values() if isinstance(self.state, dict) else self.state
        hy, cy, ys = self.rnn(*state, F.split_axis(h, len(x), axis=0))
        self.state = self.keep(hy, cy)
        h = F.concat(ys, axis=0)
        if layer_mix == "rnn":
            h, a, b = mixup_data(h, target, lam)
        return (self.fc(h), a, b) if mixup_hidden else self.fc(h)


@pytest.mark.parametrize(
    "keep, names",
    [
        (lambda h, c: (h, c), r"state\[0\], state\[1\]"),
        (lambda h, c: [h, c], r"state\[0\], state\[1\]"),
        (lambda h, c: {"h": h, "c": c}, r"state\['c'\], state\['h'\]"),
    ],
)
def test_states_in_tuples_and_of_several_layers_are_found(keep, names):
    for layer in ("input", "rnn"):
        net = StateByHand(keep)
        model = ManifoldMixupClassifier(net, mixup_alpha=1, layer_mix=layer, seed=0)
        model(WORDS[0], NEXT)
        if layer == "rnn":
            model(WORDS[1], NEXT)
            continue
        with pytest.raises(RuntimeError, match=rf"carries its state \({names}\) over"):
            model(WORDS[1], NEXT)
        net.reset_state()
        model(WORDS[1], NEXT)


@pytest.mark.parametrize("make", RECURRENT.values(), ids=RECURRENT)
def test_steps_of_one_draw_may_carry_a_state(make):
    """Mixing the input of each step is training on sequences that are mixed before."""
    net = make()
    layer = net.mixup_layers[0]
    model = ManifoldMixupClassifier(net, mixup_alpha=1, layer_mix=layer, seed=0)
    draw = model.next_draw(WORDS[0], NEXT)
    came = [float(model.compute_loss(draw, x, NEXT).array) for x in WORDS]
    for link in net.links():
        if isinstance(link, L.LSTM):
            link.reset_state()
    for x, loss in zip(WORDS, came, strict=True):
        y = net(draw.lam * x + (1 - draw.lam) * x[draw.perm]).array
        y = y.astype(np.float64)
        log_p = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
        a, b = (log_p[np.arange(8), t].mean() for t in (NEXT, NEXT[draw.perm]))
        assert loss == pytest.approx(-draw.lam * a - (1 - draw.lam) * b, rel=1e-5)


def test_same_seed_same_losses():
    def losses(seed):
        np.random.seed(0)
        model = ManifoldMixupClassifier(Net(), seed=seed)
        return [float(model(*batch()).array) for _ in range(5)]

    assert losses(1) == losses(1) != losses(2)


def test_a_pickled_copy_goes_on_alike():
    model = ManifoldMixupClassifier(Net(), seed=0)
    model(*batch())
    other = pickle.loads(pickle.dumps(model))
    assert [float(m(*batch()).array) for m in (model, model)] == [
        float(m(*batch()).array) for m in (other, other)
    ]


@pytest.mark.parametrize("format", ["npz", "hdf5"])
def test_weights_are_interchangeable_with_chainers_classifier(tmp_path, format):
    pytest.importorskip("h5py")
    save = getattr(chainer.serializers, f"save_{format}")
    load = getattr(chainer.serializers, f"load_{format}")
    path = str(tmp_path / "model")
    ours, plain = ManifoldMixupClassifier(Net()), L.Classifier(Net())
    save(path, plain)
    load(path, ours)
    np.testing.assert_array_equal(ours.predictor.l1.W.array, plain.predictor.l1.W.array)
    ours.predictor.l1.W.array[:] = 7
    save(path, ours)
    load(path, plain)
    assert (plain.predictor.l1.W.array == 7).all()


class Silent(Net):
    """Mixes the labels and forgets the features."""

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        y = super().forward(x)
        return (y, target, target[::-1]) if mixup_hidden else y


class Discarding(Net):
    """Mixes the features and goes on without them, as the reference's ResNet did."""

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        y = super().forward(x)
        if not mixup_hidden:
            return y
        _, a, b = mixup_data(x, target, lam)
        return y, a, b


class OwnLambda(Net):
    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        return super().forward(x, target, mixup_hidden, 0.123, layer_mix)


class Twice(Net):
    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        if mixup_hidden:
            x, _, _ = mixup_data(x, target, lam)
        return super().forward(x, target, mixup_hidden, lam, layer_mix)


class SameTargets(Net):
    """Mixes the features and not the labels."""

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        outputs = super().forward(x, target, mixup_hidden, lam, layer_mix)
        return (outputs[0], target, target) if mixup_hidden else outputs


class Frozen(Net):
    """Cuts the graph after the mixed state."""

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        h, a, b = mixup_data(F.tanh(self.l1(x)), target, lam)
        return self.l2(h.array), a, b


class Plain(Net):
    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        return super().forward(x)


@pytest.mark.parametrize(
    ("link", "error", "message"),
    [
        (Silent, RuntimeError, r"Silent.forward called mixup_data 0 times .*=1"),
        (Discarding, RuntimeError, "Discarding.forward mixed .* do not come from the"),
        (
            SameTargets,
            RuntimeError,
            "the first partners where",
        ),
        (Frozen, RuntimeError, "freeze what follows by disable_update"),
        (OwnLambda, ValueError, r"lam is 0.123, but the link was called with lam="),
        (Twice, RuntimeError, r"Twice.forward called mixup_data 2 times"),
        (Plain, TypeError, r"Plain.forward must return \(y, target_a, target_b\)"),
    ],
)
def test_a_link_that_breaks_the_contract_is_named(link, error, message):
    model = ManifoldMixupClassifier(link(), layer_mix=1)
    with pytest.raises(error, match=message):
        model(*batch())


def test_mixing_twice_is_named_under_cutmix_too():
    class Maps(Twice):
        n_in = 36

    policy = MixupPolicy(0, layer_mix=0, cutmix_alpha=1, seed=0)
    model = ManifoldMixupClassifier(Maps(), policy=policy)
    x = np.random.RandomState(0).randn(8, 4, 3, 3).astype(np.float32)
    with pytest.raises(RuntimeError, match="called mixup_data 2 times"):
        model(x, batch()[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixup_alpha": -1}, "alpha must be .* not -1"),
        ({"layer_mix": 7}, r"Net has no mixing point 7; it has 0, 1, 2"),
        ({"layer_mix": [0, "res2"]}, r"no mixing point 'res2'; it has 0, 1, 2"),
        ({"policy": MixupPolicy(), "seed": 1}, "policy replaces"),
        ({"policy": MixupPolicy(layer_mix=9)}, "no mixing point 9"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ManifoldMixupClassifier(Net(), **arguments)


def test_a_link_that_knows_nothing_of_mixing_is_named_at_once():
    class MLP(chainer.Chain):
        def forward(self, x):
            return x

    with pytest.raises(TypeError, match=r"let MLP.forward accept .* takes \(x\)"):
        ManifoldMixupClassifier(MLP())
    ManifoldMixupClassifier(MLP(), mixup_hidden=False)


def test_labels_of_another_length_float_or_out_of_range():
    model = ManifoldMixupClassifier(Net(), layer_mix=0)
    x, t = batch()
    with pytest.raises(ValueError, match=r"8 samples .* target has 7"):
        model(x, t[:7])
    with pytest.raises(ValueError, match=r"\[0, 3\).* found 5"):
        model(x, t * 0 + 5)
    with pytest.raises(ValueError, match=r"shape \(8,\), or .* not float32"):
        model(x, t.astype(np.float32))


def test_last_batch_of_one_trains():
    model = ManifoldMixupClassifier(Net(), layer_mix=0)
    model(*batch(1)).backward()
    assert np.isfinite(model.loss.array)


@pytest.mark.gpu
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_gpu_equals_cpu(layer):
    np.random.seed(0)
    net, losses = Net(), []
    for device in ("@numpy", "@cupy:0"):
        model = ManifoldMixupClassifier(net.copy(), True, layer_mix=layer, seed=0)
        model = model.copy()
        model.to_device(device)
        args = map(chainer.get_device(device).send, batch())
        loss = model(*args)
        model.cleargrads()
        loss.backward()
        gradient = chainer.get_device("@numpy").send(model.predictor.l1.W.grad)
        losses.append((float(loss.array), gradient))
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)
    np.testing.assert_allclose(losses[0][1], losses[1][1], rtol=1e-4, atol=1e-6)
