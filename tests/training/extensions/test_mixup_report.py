import json

import chainer
import chainer.links as L
import numpy as np
import pytest
from chainer.datasets import TupleDataset
from chainer.training import triggers

from chainer_mmix import ManifoldMixupClassifier, MixupPolicy, mixup_data
from chainer_mmix.training.extensions import MixupReport

EPOCH = 10  # iterations in it


class Net(chainer.Chain):
    mixup_layers = (0, "hidden", 7)

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.fc = L.Linear(None, 2)

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        if not mixup_hidden:
            return self.fc(x)
        h, target_a, target_b = mixup_data(x, target, lam)
        return self.fc(h), target_a, target_b


class Unlisted(Net):
    mixup_layers = None


class Recorder:
    """Draws as its policy does and remembers."""

    def __init__(self, policy):
        self.draws = []
        draw = policy.draw

        def record(*args):
            self.draws.append(draw(*args))
            return self.draws[-1]

        policy.draw = record


def make(model, out, epoch=2, shape=(3,)):
    dataset = TupleDataset(
        np.random.default_rng(0).random((4 * EPOCH, *shape), np.float32),
        np.zeros(4 * EPOCH, np.int32),
    )
    optimizer = chainer.optimizers.SGD(0.01).setup(model)
    iterator = chainer.iterators.SerialIterator(dataset, 4)
    updater = chainer.training.StandardUpdater(iterator, optimizer)
    trainer = chainer.training.Trainer(updater, (epoch, "epoch"), str(out))
    # Registered after them on purpose: its priority puts it first.
    trainer.extend(chainer.training.extensions.LogReport())
    evaluation = chainer.iterators.SerialIterator(dataset, 4, False, False)
    trainer.extend(chainer.training.extensions.Evaluator(evaluation, model))
    trainer.extend(MixupReport())
    return trainer


@pytest.mark.parametrize(
    "trigger, name",
    [
        ((1, "epoch"), r"\(1, 'epoch'\)"),
        (triggers.ManualScheduleTrigger([1], "epoch"), "ManualScheduleTrigger"),
        (triggers.MinValueTrigger("main/loss"), "MinValueTrigger"),
    ],
)
def test_a_trigger_that_skips_iterations_is_refused(tmp_path, trigger, name):
    """The Trainer would call it then alone, and the counts would be of so many."""
    trainer = make(ManifoldMixupClassifier(Net(), seed=0), tmp_path)
    trainer.extend(MixupReport(), name="other", trigger=trigger)
    with pytest.raises(ValueError, match=rf"MixupReport\(trigger={name}\)"):
        trainer.run()


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_counts_are_those_of_the_draws(tmp_path, per):
    policy = MixupPolicy(0.5, per=per, seed=0)
    recorder = Recorder(policy)
    make(ManifoldMixupClassifier(Net(), policy=policy), tmp_path).run()

    assert len(recorder.draws) == 2 * EPOCH
    layers = [str(draw.layer_mix) for draw in recorder.draws]
    lam = np.concatenate([np.atleast_1d(draw.lam) for draw in recorder.draws])
    content = json.loads((tmp_path / "mixup.json").read_text())
    expected = {k: layers.count(k) for k in ("0", "hidden", "7")}
    assert content["layer"] == {"none": 0, **expected}
    edges = content["lam"]["bin_edges"]
    assert edges[0] == 0 and edges[-1] == 1 and len(edges) == 21
    expected = np.histogram(lam, bins=20, range=(0, 1))[0]
    assert content["lam"]["counts"] == expected.tolist()
    assert content["settings"] == {
        "alpha": 0.5,
        "layer_mix": [0, "hidden", 7],
        "per": per,
        "fold": False,
        "prob": 1,
        "cutmix_alpha": 0,
        "fmix_alpha": 0,
        "switch_prob": 0.5,
    }
    assert content["method"] == {"mixup": lam.size, "cutmix": 0}

    log = json.loads((tmp_path / "log").read_text())
    for epoch, entry in enumerate(log):
        drawn = layers[epoch * EPOCH : (epoch + 1) * EPOCH]
        for point in ("0", "hidden", "7"):
            share = entry[f"mixup/layer/{point}"]
            assert share == pytest.approx(drawn.count(point) / EPOCH)


def test_losses_are_the_means_by_point(tmp_path):
    model = ManifoldMixupClassifier(Net(), mixup_alpha=0.5, seed=0)
    trainer = make(model, tmp_path)
    seen = []

    def remember(trainer):
        loss = float(trainer.observation["main/loss"].array)
        seen.append((str(model.draw.layer_mix), loss))

    remember.trigger, remember.priority = (1, "iteration"), 400
    trainer.extend(remember, name="remember")
    trainer.run()
    content = json.loads((tmp_path / "mixup.json").read_text())
    log = json.loads((tmp_path / "log").read_text())
    for point in ("0", "hidden", "7"):
        own = [loss for p, loss in seen if p == point]
        assert content["loss"][point] == pytest.approx(np.mean(own), rel=1e-5)
        for epoch, entry in enumerate(log):
            part = seen[epoch * EPOCH : (epoch + 1) * EPOCH]
            own = [loss for p, loss in part if p == point]
            assert entry[f"mixup/loss/{point}"] == pytest.approx(np.mean(own), rel=1e-5)
    assert "none" not in content["loss"]


def test_a_target_without_a_loss_has_none(tmp_path):
    model = L.Classifier(Net())
    model.compute_accuracy = False
    trainer = make(model, tmp_path, epoch=1)
    trainer.extend(
        lambda trainer: trainer.observation.pop("main/loss"),
        name="drop",
        trigger=(1, "iteration"),
        priority=1000,
    )
    trainer.run()
    assert json.loads((tmp_path / "mixup.json").read_text())["loss"] == {}


def test_points_that_are_never_drawn_are_logged_as_0(tmp_path):
    model = ManifoldMixupClassifier(Net(), layer_mix=[0, 7], seed=0)
    model.policy.draw = lambda n, points: MixupPolicy(layer_mix=7).draw(n)
    make(model, tmp_path, epoch=1).run()
    (entry,) = json.loads((tmp_path / "log").read_text())
    assert (entry["mixup/layer/0"], entry["mixup/layer/7"]) == (0, 1)
    assert "mixup/layer/hidden" not in entry


@pytest.mark.parametrize(
    "model",
    [
        lambda: ManifoldMixupClassifier(Net(), mixup_hidden=False),
        lambda: L.Classifier(Net()),
    ],
)
def test_no_mixing_counts_as_none(tmp_path, model):
    make(model(), tmp_path).run()
    content = json.loads((tmp_path / "mixup.json").read_text())
    assert content["layer"] == {"none": 2 * EPOCH}
    assert sum(content["lam"]["counts"]) == 0
    assert content["settings"] is None


def test_a_link_that_chooses_itself(tmp_path):
    make(ManifoldMixupClassifier(Unlisted(), seed=0), tmp_path).run()
    content = json.loads((tmp_path / "mixup.json").read_text())
    assert content["layer"] == {"none": 0, "link": 2 * EPOCH}
    assert sum(content["lam"]["counts"]) == 2 * EPOCH
    assert content["settings"]["layer_mix"] is None


def test_batches_that_are_not_mixed_and_cutmix_are_counted(tmp_path):
    policy = MixupPolicy(1, layer_mix=7, prob=0.7, cutmix_alpha=1, seed=0)
    recorder = Recorder(policy)
    make(ManifoldMixupClassifier(Net(), policy=policy), tmp_path, shape=(1, 4)).run()
    cut = [d.center is not None for d in recorder.draws if d is not None]
    content = json.loads((tmp_path / "mixup.json").read_text())
    none = 2 * EPOCH - len(cut)
    assert none > 0 and content["layer"] == {"none": none, "7": len(cut)}
    methods = {"mixup": len(cut) - sum(cut), "cutmix": sum(cut)}
    assert all(methods.values()) and content["method"] == methods
    log = json.loads((tmp_path / "log").read_text())
    shares = [entry["mixup/layer/none"] for entry in log]
    assert sum(shares) == pytest.approx(none / EPOCH)


def test_methods_are_counted_by_sample_where_each_draws_its_own(tmp_path):
    policy = MixupPolicy(1, 7, "sample", prob=0.6, resizemix_minmax=(0.2, 0.8), seed=0)
    recorder = Recorder(policy)
    make(ManifoldMixupClassifier(Net(), policy=policy), tmp_path, shape=(3, 4)).run()
    drawn = [draw.method for draw in recorder.draws if draw is not None]
    method = np.concatenate(drawn)
    content = json.loads((tmp_path / "mixup.json").read_text())
    counts = {m: (method == m).sum() for m in ("mixup", "resizemix")}
    assert content["method"] == {**counts, "cutmix": 0} and all(counts.values())
    assert sum(content["lam"]["counts"]) == sum(counts.values()) < len(method)
    assert content["settings"]["resizemix_minmax"] == [0.2, 0.8]


def test_it_does_not_disturb_random_state(tmp_path):
    model = ManifoldMixupClassifier(Net(), seed=0)
    trainer = make(model, tmp_path)
    trainer.updater.update()
    before = np.random.get_state()[1].tolist(), model.policy._rng.bit_generator.state
    report = trainer.get_extension("MixupReport")
    report.initialize(trainer)
    report(trainer)
    after = np.random.get_state()[1].tolist(), model.policy._rng.bit_generator.state
    assert before == after
