import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix import ManifoldMixupClassifier, MixupPolicy, mixup_data


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


def test_another_lossfun_is_applied_to_both_targets():
    class Regression(Net):
        n_class = 1

    net = Regression()
    model = ManifoldMixupClassifier(
        net, mixup_alpha=1, layer_mix=0, lossfun=F.mean_squared_error, seed=0
    )
    model.compute_accuracy = False
    x, _ = batch()
    t = np.random.RandomState(1).rand(8, 1).astype(np.float32)
    loss = model(x, t).array
    y, lam, perm = model.y.array, model.draw.lam, model.draw.perm
    expected = lam * ((y - t) ** 2).mean() + (1 - lam) * ((y - t[perm]) ** 2).mean()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_same_seed_same_losses():
    def losses(seed):
        np.random.seed(0)
        model = ManifoldMixupClassifier(Net(), seed=seed)
        return [float(model(*batch()).array) for _ in range(5)]

    assert losses(1) == losses(1) != losses(2)


def test_a_pickled_copy_goes_on_alike():
    model = ManifoldMixupClassifier(Net(), seed=0)
    model(*batch())
    model.y = model.loss = model.accuracy = None  # Chainer cannot pickle its graph
    other = pickle.loads(pickle.dumps(model))
    assert [float(m(*batch()).array) for m in (model, model)] == [
        float(m(*batch()).array) for m in (other, other)
    ]


def test_snapshot_continues_the_draws(tmp_path):
    model, other = (ManifoldMixupClassifier(Net(), seed=s) for s in (0, 1))
    model(*batch())
    path = str(tmp_path / "model.npz")
    chainer.serializers.save_npz(path, model)
    chainer.serializers.load_npz(path, other)
    assert [float(model(*batch(4, s)).array) for s in range(5)] == [
        float(other(*batch(4, s)).array) for s in range(5)
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


class Plain(Net):
    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        return super().forward(x)


@pytest.mark.parametrize(
    ("link", "error", "message"),
    [
        (Silent, RuntimeError, r"Silent.forward called mixup_data 0 times .*=1"),
        (Discarding, RuntimeError, "Discarding.forward mixed .* do not come from the"),
        (OwnLambda, ValueError, r"lam is 0.123, but the link was called with lam="),
        (Twice, RuntimeError, r"Twice.forward called mixup_data 2 times"),
        (Plain, TypeError, r"Plain.forward must return \(y, target_a, target_b\)"),
    ],
)
def test_a_link_that_breaks_the_contract_is_named(link, error, message):
    model = ManifoldMixupClassifier(link(), layer_mix=1)
    with pytest.raises(error, match=message):
        model(*batch())


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

    with pytest.raises(TypeError, match=r"MLP.forward must accept .* takes \(x\)"):
        ManifoldMixupClassifier(MLP())
    ManifoldMixupClassifier(MLP(), mixup_hidden=False)


def test_labels_of_another_length_float_or_out_of_range():
    model = ManifoldMixupClassifier(Net(), layer_mix=0)
    x, t = batch()
    with pytest.raises(ValueError, match=r"8 samples .* target has 7"):
        model(x, t[:7])
    with pytest.raises(ValueError, match=r"\[0, 3\).* found 5"):
        model(x, t * 0 + 5)
    with pytest.raises(chainer.utils.type_check.InvalidType, match=r"kind == i"):
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
        model = ManifoldMixupClassifier(net.copy(), 1, layer_mix=layer, seed=0)
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
