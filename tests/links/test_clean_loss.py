"""The loss of the unmixed minibatch beside the mixed one, Remix and top-k accuracy."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix import ManifoldMixupClassifier, MixupLayers, MixupPolicy
from chainer_mmix.mixing import Remix

COUNTS = np.array([100, 30, 4])


class Net(chainer.Chain):
    def __init__(self):
        super().__init__(l1=L.Linear(4, 5), l2=L.Linear(5, 3))

    def forward(self, x):
        return self.l2(F.tanh(self.l1(x)))


def log_p(y):
    y = y.astype("d")
    return y - np.log(np.exp(y).sum(axis=1, keepdims=True))


def expected_of(net, draw, x, t, remix=None):
    """Returns loss, top-1 and top-2 accuracy, of a draw or unmixed, in NumPy."""

    def linear(link, x):
        return x @ link.W.array.T + link.b.array

    n = np.arange(len(t))
    perm, lam = (n, 1.0) if draw is None else (draw.perm, draw.lam)
    lam = np.broadcast_to(lam, len(t)).astype("d")
    if draw is not None and draw.layer_mix == "input":
        x = lam[:, None] * x + (1 - lam[:, None]) * x[perm]
    h = linear(net.l1, x)
    if draw is not None and draw.layer_mix == "l1":
        h = lam[:, None] * h + (1 - lam[:, None]) * h[perm]
    y = linear(net.l2, np.tanh(h))
    a, b = t, t[perm]
    if remix is not None:
        ratio = COUNTS[a] / COUNTS[b]
        of_b = (ratio >= remix.kappa) & (lam < remix.tau)
        of_a = (1 / ratio >= remix.kappa) & (1 - lam < remix.tau)
        lam = np.where(of_b, 0, np.where(of_a, 1, lam))
    loss = -(lam * log_p(y)[n, a] + (1 - lam) * log_p(y)[n, b]).mean()
    best = np.argsort(-y, axis=1)
    scores = [
        (lam * (best[:, :k] == a[:, None]).any(1)).mean()
        + ((1 - lam) * (best[:, :k] == b[:, None]).any(1)).mean()
        for k in (1, 2)
    ]
    return loss, *scores


@pytest.mark.parametrize("per", ["batch", "pair", "sample"])
@pytest.mark.parametrize("n", [1, 4, 7])
@pytest.mark.parametrize("clean_weight", [0, 0.3])
@pytest.mark.parametrize("remix", [None, Remix(COUNTS)])
def test_what_it_reports_is_that_of_numpy(per, n, clean_weight, remix):
    rng = np.random.RandomState(0)
    net = Net()
    options = {"alpha": 1, "per": per, "prob": 0.4, "seed": 1}
    drawn = MixupPolicy(layer_mix=["input", "l1"], **options)
    model = ManifoldMixupClassifier(
        MixupLayers(net, ["input", "l1"]),
        policy=MixupPolicy(**options),
        clean_weight=clean_weight,
        remix=remix,
        top_k=2,
    )
    reporter = chainer.Reporter()
    reporter.add_observer("main", model)
    is_mixed = set()
    for _ in range(8):
        x, t = rng.randn(n, 4).astype("f"), rng.randint(0, 3, n).astype("i")
        draw = drawn.draw(n)
        is_mixed.add(draw is not None)
        observation = {}
        with reporter.scope(observation):
            loss = model(x, t)
        mixed = expected_of(net, draw, x, t, draw and remix)
        clean = expected_of(net, None, x, t)
        values = {
            "loss": (1 - clean_weight) * mixed[0] + clean_weight * clean[0],
            "accuracy": mixed[1],
            "top2_accuracy": mixed[2],
            "lam": 1 if draw is None else np.mean(draw.lam),
        }
        if clean_weight:
            names = "clean_loss", "clean_accuracy", "clean_top2_accuracy"
            values |= dict(zip(names, clean, strict=True))
        got = {
            k.removeprefix("main/"): float(chainer.as_array(v))
            for k, v in observation.items()
        }
        assert got == pytest.approx(values, rel=1e-5, abs=1e-6)
        assert float(loss.array) == pytest.approx(values["loss"], rel=1e-5)
        assert float(model.accuracy.array) == pytest.approx(mixed[1], rel=1e-5)
    assert True in is_mixed and (per != "batch" or False in is_mixed)
    with chainer.using_config("train", False), reporter.scope(observation := {}):
        model(x, t)
    assert set(observation) == {"main/loss", "main/accuracy", "main/top2_accuracy"}
    assert float(observation["main/loss"].array) == pytest.approx(clean[0], rel=1e-5)


def test_the_gradient_is_that_of_both_losses():
    rng = np.random.RandomState(0)
    x, t = rng.randn(6, 4).astype("f"), rng.randint(0, 3, 6).astype("i")
    net, gradients = Net(), []
    for clean_weight, mixes in ((0.3, True), (0, True), (0, False)):
        model = ManifoldMixupClassifier(
            MixupLayers(net, ["l1"]),
            mixup_hidden=mixes,
            mixup_alpha=1,
            seed=0,
            clean_weight=clean_weight,
        )
        model.cleargrads()
        model(x, t).backward()
        gradients.append([param.grad.copy() for param in net.params()])
    for both, mixed, clean in zip(*gradients, strict=True):
        np.testing.assert_allclose(
            both, 0.7 * mixed + 0.3 * clean, rtol=1e-5, atol=1e-7
        )


def test_batch_normalization_sees_each_minibatch_by_itself():
    """The running statistics are as after a step without mixing and a mixed one."""
    rng = np.random.RandomState(0)
    x, t = rng.randn(8, 4).astype("f"), rng.randint(0, 3, 8).astype("i")
    net = chainer.Sequential(L.BatchNormalization(4), L.Linear(4, 3))
    model = ManifoldMixupClassifier(
        MixupLayers(net, ["input"]), mixup_alpha=1, seed=0, clean_weight=1
    )
    model(x, t)
    lam, perm = model.draw.lam, model.draw.perm
    mean = 0.1 * x.mean(axis=0)
    mean = 0.9 * mean + 0.1 * (lam * x + (1 - lam) * x[perm]).mean(axis=0)
    np.testing.assert_allclose(net[0].avg_mean, mean, rtol=1e-4, atol=1e-6)


def test_what_a_loss_function_reports_is_of_the_mixed_minibatch():
    class Reporting(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.model = ManifoldMixupClassifier(
                    MixupLayers(Net(), ["l1"]),
                    lossfun=self.lossfun,
                    mixup_alpha=1,
                    clean_weight=0.5,
                    seed=0,
                )

        def lossfun(self, y, t):
            loss = F.softmax_cross_entropy(y, t)
            chainer.report({"own": loss}, self)
            return loss

    chain = Reporting()
    reporter = chainer.Reporter()
    reporter.add_observers("main", chain.namedlinks(skipself=True))
    reporter.add_observer("main", chain)
    rng = np.random.RandomState(0)
    x, t = rng.randn(6, 4).astype("f"), rng.randint(0, 3, 6).astype("i")
    with reporter.scope(observation := {}):
        chain.model(x, t)
    total, clean, own = (
        float(observation[f"main{name}"].array)
        for name in ("/model/loss", "/model/clean_loss", "/own")
    )
    assert own == pytest.approx(2 * total - clean, rel=1e-5) and own != clean


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clean_weight": 1.5}, r"clean_weight must lie in \[0, 1\], not 1.5"),
        ({"clean_weight": float("nan")}, "clean_weight must lie .* not nan"),
        ({"top_k": 0}, "top_k must be a whole number >= 1, not 0"),
        ({"top_k": 2.5}, "top_k must be a whole number >= 1, not 2.5"),
        ({"top_k": True}, "top_k must be a whole number >= 1, not True"),
        *[
            ({"mixup_hidden": False, **option}, f"{name} changes nothing with mixup_h")
            for option in ({"clean_weight": 0.5}, {"remix": Remix([1, 2, 3])})
            for name in option
        ],
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        ManifoldMixupClassifier(MixupLayers(Net(), ["l1"]), **options)


def test_counts_of_other_classes_are_an_error():
    net = MixupLayers(Net(), ["l1"])
    with pytest.raises(TypeError, match="remix must be a Remix, not list"):
        ManifoldMixupClassifier(net, remix=[1, 2, 3])
    model = ManifoldMixupClassifier(net, remix=Remix([1, 2]), seed=0)
    with pytest.raises(ValueError, match=r"counts of 2 classes, .* has 3 outputs"):
        model(np.zeros((2, 4), "f"), np.zeros(2, "i"))
