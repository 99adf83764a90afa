"""A policy's generator belongs to snapshots of training, not to files of weights."""

import json

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import iterators, serializers
from chainer.datasets import TupleDataset
from chainer.training import Trainer, Updater, extensions
from chainer.training.updaters import StandardUpdater

from chainer_mmix import ManifoldMixupClassifier, MixupLayers

rng = np.random.RandomState(0)
X = rng.randn(12, 4).astype(np.float32)
T = rng.randint(0, 3, 12).astype(np.int32)
RNG = "updater/model:main/policy/rng"


def make_model(seed=0):
    net = chainer.Sequential(L.Linear(4, 5), F.relu, L.Linear(5, 3))
    return ManifoldMixupClassifier(
        MixupLayers(net, ["input", "0"]), mixup_alpha=1, seed=seed
    )


def draws(model, n=4):
    drawn = [model.policy.draw(5, model.points) for _ in range(n)]
    return [(d.layer_mix, d.lam, d.perm.tolist()) for d in drawn]


class Wrapper(chainer.Chain):
    def __init__(self, model):
        super().__init__(model=model)

    def forward(self, x, t):
        return 2 * self.model(x, t)


class OwnUpdater(Updater):
    """An updater that only implements what a Trainer asks for."""

    def __init__(self, iterator, optimizer):
        self.iterator, self.optimizer, self.iteration = iterator, optimizer, 0

    def connect_trainer(self, trainer):
        pass

    def finalize(self):
        pass

    def get_optimizer(self, name):
        return self.optimizer

    def get_all_optimizers(self):
        return {"any name": self.optimizer}

    def update(self):
        x, t = zip(*self.iterator.next(), strict=True)
        self.optimizer.update(self.optimizer.target, np.stack(x), np.array(t))
        self.iteration += 1

    def serialize(self, serializer):
        self.iteration = serializer("iteration", self.iteration)
        self.iterator.serialize(serializer["iterator"])
        self.optimizer.serialize(serializer["optimizer"])
        self.optimizer.target.serialize(serializer["net"])

    @property
    def epoch(self):
        return self.iterator.epoch

    @property
    def epoch_detail(self):
        return self.iterator.epoch_detail

    @property
    def previous_epoch_detail(self):
        return self.iterator.previous_epoch_detail

    @property
    def is_new_epoch(self):
        return self.iterator.is_new_epoch


def target(iterator, model):
    return StandardUpdater(iterator, chainer.optimizers.Adam().setup(model))


def child(iterator, model):
    return StandardUpdater(iterator, chainer.optimizers.Adam().setup(Wrapper(model)))


def loss_func(iterator, model):
    optimizer = chainer.optimizers.Adam().setup(model.predictor)
    return StandardUpdater(iterator, optimizer, loss_func=model)


def inside_of_loss_func(iterator, model):
    optimizer = chainer.optimizers.Adam().setup(model.predictor)
    return StandardUpdater(iterator, optimizer, loss_func=Wrapper(model))


def in_a_closure(iterator, model):
    optimizer = chainer.optimizers.Adam().setup(model.predictor)
    return StandardUpdater(iterator, optimizer, loss_func=lambda *args: model(*args))


def in_a_global_variable(iterator, model):
    global script_model
    script_model = model
    optimizer = chainer.optimizers.Adam().setup(model.predictor)
    return StandardUpdater(iterator, optimizer, loss_func=loss_of_a_script)


def loss_of_a_script(*args):
    return script_model(*args)


def own_updater(iterator, model):
    return OwnUpdater(iterator, chainer.optimizers.Adam().setup(model))


def make_trainer(out, make_updater, model, n=8):
    iterator = iterators.SerialIterator(TupleDataset(X, T), 5, shuffle=False)
    trainer = Trainer(make_updater(iterator, model), (n, "iteration"), str(out))
    trainer.reporter.add_observer("model", model)  # for those that are no target
    trainer.extend(extensions.snapshot(filename="snapshot"), trigger=(n, "iteration"))
    return trainer


@pytest.mark.parametrize(
    "make_updater",
    [
        target,
        child,
        loss_func,
        inside_of_loss_func,
        in_a_closure,
        in_a_global_variable,
        own_updater,
    ],
)
def test_a_trainer_goes_on_as_if_it_had_not_stopped(tmp_path, make_updater):
    whole = make_model()
    make_trainer(tmp_path / "whole", make_updater, whole, 16).run()
    make_trainer(tmp_path, make_updater, make_model()).run()
    rest = make_model(seed=1)
    trainer = make_trainer(tmp_path / "rest", make_updater, rest, 16)
    serializers.load_npz(tmp_path / "snapshot", trainer)
    trainer.run()
    assert draws(rest) == draws(whole)


@pytest.mark.parametrize("saver", ["npz", "hdf5"])
def test_an_updater_alone_is_enough(tmp_path, saver):
    if saver == "hdf5":
        pytest.importorskip("h5py")
    save, load = (getattr(serializers, f"{verb}_{saver}") for verb in ("save", "load"))
    model, other = make_model(), make_model(seed=1)
    updater = make_trainer(tmp_path, target, model).updater
    updater.update()
    save(str(tmp_path / "x"), updater)
    load(str(tmp_path / "x"), make_trainer(tmp_path, target, other).updater)
    assert draws(other) == draws(model)


def test_the_state_is_where_earlier_snapshots_have_it(tmp_path):
    model = make_model()
    trainer = make_trainer(tmp_path, target, model)
    trainer.run()
    with np.load(tmp_path / "snapshot", allow_pickle=True) as file:
        saved = json.loads(file[RNG].tobytes())
    assert saved == model.policy._rng.bit_generator.state


@pytest.mark.parametrize("saver", ["npz", "hdf5"])
def test_weights_are_weights(tmp_path, saver):
    if saver == "hdf5":
        pytest.importorskip("h5py")
    save, load = (getattr(serializers, f"{verb}_{saver}") for verb in ("save", "load"))
    model, other = make_model(), make_model(seed=1)
    draws(model)
    save(str(tmp_path / "weights"), model)
    load(str(tmp_path / "weights"), other)
    weights = [m.predictor.net[0].W.array for m in (model, other)]
    np.testing.assert_array_equal(*weights)
    assert draws(other) == draws(make_model(seed=1))
    plain = L.Classifier(MixupLayers(model.predictor.net, ["0"]))
    names = [set(serializers.npz.serialize(link)) for link in (model, plain)]
    assert names[0] == names[1]


def test_weights_out_of_other_files_are_weights(tmp_path):
    model = make_model()
    make_trainer(tmp_path, target, model).run()
    other = make_model(seed=1)
    serializers.load_npz(tmp_path / "snapshot", other, path="updater/model:main/")
    # Files of weights once had the generator too.
    old = serializers.npz.serialize(model)
    state = json.dumps(model.policy._rng.bit_generator.state).encode()
    np.savez(tmp_path / "old.npz", **old, **{"policy/rng": np.frombuffer(state, "u1")})
    serializers.load_npz(tmp_path / "old.npz", other)
    assert draws(other) == draws(make_model(seed=1))

    trainer = make_trainer(tmp_path, target, model)
    extensions.snapshot_object(model, "object")(trainer)
    assert not any("rng" in key for key in np.load(tmp_path / "object"))


def state_of(generator):
    return json.dumps(generator(0).state, default=lambda a: a.tolist()).encode()


@pytest.mark.parametrize(
    "state",
    [
        b"{}",
        b"[1, 2]",
        b"\xff\x00",
        state_of(np.random.PCG64)[:-9],
        state_of(np.random.MT19937),
        state_of(np.random.PCG64).replace(b'"state": 3', b'"state": -3'),
        state_of(np.random.PCG64).replace(b'"uinteger": 0', b'"uinteger": 0.5'),
    ],
)
def test_another_state_in_a_snapshot_is_an_error(tmp_path, state):
    make_trainer(tmp_path, target, make_model()).run()
    content = dict(np.load(tmp_path / "snapshot", allow_pickle=True))
    content[RNG] = np.frombuffer(state, np.uint8)
    np.savez(tmp_path / "broken.npz", **content)
    model = make_model(seed=1)
    with pytest.raises(ValueError, match="not the state of a policy's generator"):
        serializers.load_npz(
            tmp_path / "broken.npz", make_trainer(tmp_path, target, model)
        )
    assert draws(model) == draws(make_model(seed=1))


def test_a_snapshot_of_a_training_without_mixing_leaves_the_policy_alone(tmp_path):
    make_trainer(tmp_path, target, make_model()).run()
    content = dict(np.load(tmp_path / "snapshot", allow_pickle=True))
    del content[RNG]
    np.savez(tmp_path / "plain.npz", **content)
    for strict in (True, False):
        model = make_model(seed=1)
        trainer = make_trainer(tmp_path, target, model)
        serializers.load_npz(tmp_path / "plain.npz", trainer, strict=strict)
        assert draws(model) == draws(make_model(seed=1))
