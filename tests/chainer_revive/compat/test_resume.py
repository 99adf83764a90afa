"""A training that is resumed ends as one that was not interrupted."""

import copy
import json

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import optimizers, training
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator, ShuffleOrderSampler
from chainer.link_hooks import SpectralNormalization
from chainer.serializers import load_hdf5, load_npz, save_hdf5, save_npz
from chainer.training import StandardUpdater, Trainer, extensions, triggers
from chainer.training.updaters import ParallelUpdater

rng = np.random.RandomState(0)
SAVERS = {"npz": (save_npz, load_npz), "hdf5": (save_hdf5, load_hdf5)}
DATA = TupleDataset(rng.rand(40, 4).astype("f"), (rng.rand(40) > 0.5).astype(np.int32))


def make_trainer(out, stop, model=None, optimizer=None):
    np.random.seed(0)
    model = model or L.Classifier(L.Linear(4, 2))
    optimizer = (optimizer or optimizers.SGD(1.0)).setup(model)
    updater = StandardUpdater(SerialIterator(DATA, 10, shuffle=False), optimizer)
    trainer = Trainer(updater, stop, out=str(out))
    trainer.extend(extensions.LogReport())
    trainer.extend(extensions.FailOnNonNumber())
    return trainer


def losses(trainer):
    return [entry["main/loss"] for entry in trainer.get_extension("LogReport").log]


# --- snapshot(autoload=True) ---------------------------------------------------------


@pytest.mark.parametrize("shift", ["linear", "exponential"])
def test_autoload_comes_before_other_extensions(shift, tmp_path):
    def run(out, epochs, autoload):
        trainer = make_trainer(out, (epochs, "epoch"))
        extension = {
            "linear": extensions.LinearShift("lr", (1.0, 0.1), (0, 16)),
            "exponential": extensions.ExponentialShift("lr", 0.8),
        }[shift]
        trainer.extend(extension, trigger=(1, "iteration"))
        rates = []

        @chainer.training.make_extension(trigger=(1, "iteration"), priority=1000)
        def note(trainer):
            rates.append(trainer.updater.get_optimizer("main").lr)

        trainer.extend(note)
        trainer.extend(extensions.snapshot(autoload=autoload), trigger=(1, "epoch"))
        trainer.run()
        return rates, losses(trainer)

    right_rates, right = run(tmp_path / "a", 4, False)
    run(tmp_path / "b", 2, True)
    rates, came = run(tmp_path / "b", 4, True)
    assert rates == right_rates[8:]
    assert came == right


# --- Shifts that set their value as at the beginning ---------------------------------


def rates(out, epochs, extend, saver, resume=None):
    trainer = make_trainer(out, (epochs, "epoch"))
    found = []

    @chainer.training.make_extension(trigger=(1, "iteration"), priority=1000)
    def note(trainer):
        found.append(trainer.updater.get_optimizer("main").lr)

    trainer.extend(note)
    extend(trainer)
    save, load, name = saver
    if resume:
        load(str(resume), trainer)
    trainer.run()
    save(str(out / name), trainer)
    return found, trainer


def drops_of_a_schedule(trainer):
    trigger = triggers.ManualScheduleTrigger([1, 2], "epoch")
    trainer.extend(extensions.ExponentialShift("lr", 0.5), trigger=trigger)


def steps(trainer):
    trainer.extend(extensions.MultistepShift("lr", 0.1, [3, 9, 13], 0.8))


def steps_from_the_optimizer(trainer):
    trainer.extend(extensions.MultistepShift("lr", 0.1, [3, 9, 13], None))


def warmup(trainer):
    trainer.extend(extensions.WarmupShift("lr", 0.1, 10, 0.7))


def steps_and_warmup(trainer):
    # By epochs, so that nothing sets the rate soon after the resume.
    steps = extensions.MultistepShift("lr", 0.1, [2, 3], 0.7)
    trainer.extend(steps, trigger=(1, "epoch"))
    trainer.extend(extensions.WarmupShift("lr", 0.1, 3, 0.7))


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize(
    "saver",
    [(save_npz, load_npz, "npz"), (save_hdf5, load_hdf5, "h5")],
    ids=["npz", "hdf5"],
)
@pytest.mark.parametrize(
    "extend",
    [drops_of_a_schedule, steps, steps_from_the_optimizer, warmup, steps_and_warmup],
)
def test_shifts_are_resumed(extend, saver, cut, tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    right, unbroken = rates(tmp_path / "a", 4, extend, saver)
    before, _ = rates(tmp_path / "b", cut, extend, saver)
    resume = tmp_path / "b" / saver[2]
    after, resumed = rates(tmp_path / "c", 4, extend, saver, resume)
    assert before + after == right
    assert len(set(right)) > 2
    assert losses(resumed) == losses(unbroken)


def test_warmup_of_a_snapshot_without_its_last_value(tmp_path):
    saver = (save_npz, load_npz, "npz")
    rates(tmp_path, 3, warmup, saver)
    with np.load(tmp_path / "npz", allow_pickle=True) as file:
        old = {k: v for k, v in file.items() if not k.endswith("/_value")}
        assert len(old) == len(file) - 1
    np.savez(tmp_path / "old.npz", **old)
    after, _ = rates(tmp_path, 4, warmup, saver, tmp_path / "old.npz")
    assert after == [0.7] * 4


# --- EarlyStoppingTrigger ------------------------------------------------------------


def stopping(out, values, patience=3):
    stop = triggers.EarlyStoppingTrigger(
        monitor="value", patience=patience, max_trigger=(12, "epoch")
    )
    trainer = make_trainer(out, stop)

    @chainer.training.make_extension(trigger=(1, "iteration"), priority=300)
    def monitor(trainer):
        trainer.observation["value"] = values[trainer.updater.iteration - 1]

    trainer.extend(monitor)
    return trainer


@pytest.mark.parametrize("at", [10, 20, 22])  # 22 is within an epoch
def test_patience_is_resumed(at, tmp_path):
    epochs = [1.0, 0.5, 0.4, 0.6, 0.7, 0.65, 0.8, 0.9, 0.95, 1.0, 1.1, 1.2]
    # The last of an epoch is low, which only the mean of all its values tells.
    values = [v + d for v in epochs for d in (0.3, 0.1, 0.1, -0.5)]
    right = stopping(tmp_path, values)
    right.extend(
        extensions.snapshot(filename="at_{.updater.iteration}.npz"),
        trigger=(1, "iteration"),
    )
    right.run()
    trainer = stopping(tmp_path, values)
    load_npz(tmp_path / f"at_{at}.npz", trainer)
    trainer.run()
    assert trainer.updater.iteration == right.updater.iteration == 24
    assert trainer.stop_trigger.best == right.stop_trigger.best


def test_what_was_seen_is_not_seen_again(tmp_path):
    """A Trainer that is saved when its run is over, and goes on."""
    trainer = stopping(tmp_path, [1.0] * 48)
    trainer.stop_trigger._max_trigger = triggers.IntervalTrigger(6, "iteration")
    trainer.run()
    save_npz(tmp_path / "end.npz", trainer)
    resumed = stopping(tmp_path, [1.0] * 48)
    load_npz(tmp_path / "end.npz", resumed)
    assert not resumed.observation
    assert resumed.stop_trigger._summary.compute_mean() == {"value": 1}


def test_patience_of_a_snapshot_without_it(tmp_path, monkeypatch):
    trainer = stopping(tmp_path, [1.0] * 48)
    trainer.run()
    with monkeypatch.context() as patch:
        patch.delattr(triggers.EarlyStoppingTrigger, "serialize")
        save_npz(tmp_path / "old.npz", trainer)
    trainer = stopping(tmp_path, [1.0] * 48)
    with pytest.warns(UserWarning, match="its patience begins anew"):
        load_npz(tmp_path / "old.npz", trainer)
    assert trainer.stop_trigger.count == 0


# --- Extensions that follow a snapshot in its iteration -------------------------------


FOLLOWING = {
    "each epoch": (1, "epoch"),
    "schedule": triggers.ManualScheduleTrigger([2, 3], "epoch"),
    "best": triggers.MinValueTrigger("validation/main/loss"),
}


@pytest.mark.parametrize("trigger", FOLLOWING)
@pytest.mark.parametrize("saver", ["npz", "hdf5", "autoload"])
def test_what_follows_a_snapshot_runs_with_the_weights_of_its_iteration(
    trigger, saver, tmp_path
):
    save, load = (save_hdf5, load_hdf5) if saver == "hdf5" else (save_npz, load_npz)
    autoload = saver == "autoload"
    filename = "snapshot_iter_{.updater.iteration}" if autoload else "latest"

    def run(out, epochs, resume=None):
        trainer = make_trainer(out, (epochs, "epoch"))
        model = trainer.updater.get_optimizer("main").target
        valid = SerialIterator(DATA, 40, repeat=False, shuffle=False)
        trainer.extend(extensions.Evaluator(valid, model))
        latest = extensions.snapshot(save, filename=filename, autoload=autoload)
        trainer.extend(latest, trigger=(1, "epoch"))
        weights = extensions.snapshot_object(model, "at_{.updater.iteration}")
        trainer.extend(weights, trigger=copy.deepcopy(FOLLOWING[trigger]))
        if resume:
            load(str(resume), trainer)
        trainer.run()
        assert len(trainer.get_extension("LogReport").log) == epochs
        return {path.name: dict(np.load(path)) for path in out.glob("at_*")}

    right = run(tmp_path / "a", 4)
    run(tmp_path / "b", 2)
    came = run(tmp_path / "b", 4, None if autoload else tmp_path / "b" / "latest")
    assert right.keys() == came.keys()
    assert "at_8" in right
    for name, weights in right.items():
        np.testing.assert_equal(came[name], weights)


def test_what_follows_a_snapshot_finds_what_was_reported(tmp_path):
    def run(out, stop, resume=None):
        trainer = make_trainer(out, (stop, "iteration"))
        snapshot = extensions.snapshot(filename="latest")
        trainer.extend(snapshot, trigger=(3, "iteration"), priority=500)
        if resume:
            load_npz(resume, trainer)
        trainer.run()
        return losses(trainer)

    right = run(tmp_path / "a", 8)
    run(tmp_path / "b", 3)
    assert run(tmp_path / "b", 8, tmp_path / "b" / "latest") == right


def test_an_error_of_what_follows_a_snapshot_ends_a_run_as_any_other(tmp_path):
    ends = []

    class Following(extensions.FailOnNonNumber):
        priority = -200
        fails = False

        def __call__(self, trainer):
            if self.fails:
                raise RuntimeError("mine")

        def on_error(self, trainer, error, traceback):
            ends.append(str(error))

        def finalize(self):
            ends.append("finalize")

    def run(fails):
        trainer = make_trainer(tmp_path, (3, "iteration"))
        snapshot = extensions.snapshot(filename="latest", autoload=True)
        trainer.extend(snapshot, trigger=(1, "iteration"))
        following = Following()
        following.fails = fails
        trainer.extend(following, trigger=(1, "iteration"))
        trainer.run()

    run(False)
    ends.clear()
    with pytest.raises(RuntimeError, match="mine"):
        run(True)
    assert ends == ["mine", "finalize"]


def test_values_that_json_cannot_hold_do_not_prevent_a_snapshot(tmp_path):
    reported = {
        **{"table": {"a": 1}, "ragged": [1, [2]], "object": object()},
        **{"objects": np.array([object()]), "two": (object(), 1)},
        **{"number": np.float32(0.5), "count": (0.25, 4)},
    }
    seen = []

    def run(stop, resume=None):
        trainer = make_trainer(tmp_path, (stop, "iteration"))
        before = training.make_extension((1, "iteration"), priority=600)(
            lambda trainer: trainer.observation.update(reported)
        )
        after = training.make_extension((1, "iteration"), priority=400)(
            lambda trainer: seen.append(trainer.observation)
        )
        trainer.extend(before, name="before")
        trainer.extend(extensions.snapshot(filename="latest"), priority=500)
        trainer.extend(after, name="after")
        if resume:
            load_npz(resume, trainer)
        trainer.run()

    run(4)
    seen.clear()
    run(4, tmp_path / "latest")
    (found,) = seen
    assert found.keys() & reported.keys() == {"number", "count"}
    assert (found["number"], found["count"]) == (0.5, (0.25, 4))


# --- Orders drawn by a generator of their own ----------------------------------------


def updater_in_order_of(random):
    sampler = ShuffleOrderSampler(random)
    optimizer = optimizers.SGD(1.0).setup(L.Classifier(L.Linear(4, 2)))
    return StandardUpdater(SerialIterator(DATA, 10, order_sampler=sampler), optimizer)


def orders(updater):
    iterator = updater.get_iterator("main")
    return [[tuple(x) for x, _ in iterator.next()] for _ in range(9)]


@pytest.mark.parametrize("saver", SAVERS)
@pytest.mark.parametrize(
    "make",
    [np.random.RandomState, np.random.default_rng]
    + [
        lambda seed, kind=kind: np.random.Generator(kind(seed))
        for kind in (np.random.MT19937, np.random.Philox, np.random.SFC64)
    ],
)
def test_generators_of_orders_are_resumed(make, saver, tmp_path):
    save, load = SAVERS[saver]
    path = str(tmp_path / "snapshot")
    updater = updater_in_order_of(make(3))
    for _ in range(6):  # within the second epoch
        updater.update()
    save(path, updater)
    right = orders(updater)
    resumed = updater_in_order_of(make(3))
    load(path, resumed)
    assert orders(resumed) == right


def test_a_snapshot_without_the_generator_of_orders(tmp_path):
    save_npz(tmp_path / "old.npz", updater_in_order_of(None))
    with pytest.warns(UserWarning, match="ShuffleOrderSampler, which begins anew"):
        load_npz(tmp_path / "old.npz", updater_in_order_of(np.random.RandomState(3)))


class OwnGenerator:
    def permutation(self, n):
        return np.arange(n)[::-1]


@pytest.mark.parametrize("random", [None, np.random, OwnGenerator()])
def test_generators_of_orders_that_are_none_or_those_of_all(random, tmp_path):
    updater = updater_in_order_of(random)
    save_npz(tmp_path / "snapshot.npz", updater)
    number = np.random.rand()
    load_npz(tmp_path / "snapshot.npz", updater)
    assert np.random.rand() != number


# --- States of recurrent links -------------------------------------------------------

RECURRENT = {
    "LSTM": lambda: L.LSTM(4, 6),
    "StatefulPeepholeLSTM": lambda: L.StatefulPeepholeLSTM(4, 6),
    "StatefulZoneoutLSTM": lambda: L.StatefulZoneoutLSTM(4, 6, 0, 0),
    "StatefulGRU": lambda: L.StatefulGRU(4, 6),
    "StatefulMGU": lambda: L.StatefulMGU(4, 6),
}


class Recurrent(chainer.Chain):
    def __init__(self, make):
        super().__init__()
        with self.init_scope():
            self.rnn, self.out = make(), L.Linear(6, 2)

    def forward(self, x):
        return self.out(self.rnn(x))


class Truncated(StandardUpdater):
    """Backprop through two steps; the state goes on."""

    def update_core(self):
        optimizer = self.get_optimizer("main")
        loss = 0
        for _ in range(2):
            batch = self.get_iterator("main").next()
            loss += optimizer.target(*self.converter(batch, self.device))
        optimizer.target.cleargrads()
        loss.backward()
        loss.unchain_backward()
        optimizer.update()


@pytest.mark.parametrize("saver", ["npz", "hdf5"])
@pytest.mark.parametrize("make", RECURRENT.values(), ids=RECURRENT)
def test_states_of_recurrent_links_are_resumed(make, saver, tmp_path):
    save, load = {"npz": (save_npz, load_npz), "hdf5": (save_hdf5, load_hdf5)}[saver]

    def trainer_for(iterations):
        np.random.seed(1)
        model = L.Classifier(Recurrent(make))
        optimizer = optimizers.Adam().setup(model)
        updater = Truncated(SerialIterator(DATA, 10, shuffle=False), optimizer)
        trainer = Trainer(updater, (iterations, "iteration"), out=str(tmp_path))
        trainer.extend(extensions.LogReport(trigger=(1, "iteration")))
        return trainer

    right = trainer_for(6)
    right.run()
    half = trainer_for(3)
    half.run()
    save(tmp_path / "half.npz", half)
    resumed = trainer_for(6)
    load(tmp_path / "half.npz", resumed)
    resumed.run()
    assert losses(resumed) == losses(right)


@pytest.mark.parametrize("n_in", [4, None])
def test_all_models_of_a_parallel_updater_are_resumed(n_in, tmp_path):
    def updater_for(seed):
        np.random.seed(seed)
        model = L.Classifier(chainer.Sequential(L.Linear(n_in, 2)))
        return ParallelUpdater(
            SerialIterator(DATA, 10, shuffle=False),
            optimizers.SGD(1.0).setup(model),
            devices={"main": -1, "second": -1},
        )

    def weights(updater):
        return updater.get_optimizer("main").target.predictor[0].W.array

    right = updater_for(0)
    right.update()
    save_npz(tmp_path / "one.npz", right)
    right.update()
    resumed = updater_for(1)
    load_npz(tmp_path / "one.npz", resumed)
    resumed.update()
    np.testing.assert_array_equal(weights(resumed), weights(right))


def recurrent_updater(out):
    model = L.Classifier(Recurrent(RECURRENT["LSTM"]))
    return make_trainer(out, (1, "epoch"), model).updater


def test_states_before_the_first_step(tmp_path):
    updater = recurrent_updater(tmp_path)
    save_npz(tmp_path / "start.npz", updater)
    rnn = updater.get_optimizer("main").target.predictor.rnn
    rnn(np.ones((3, 4), "f"))
    load_npz(tmp_path / "start.npz", updater)
    assert rnn.h is None and rnn.c is None


def test_a_model_file_has_no_states(tmp_path):
    model = Recurrent(RECURRENT["LSTM"])
    before = {name for name, _ in model.namedparams()}
    model(np.ones((3, 4), "f"))
    save_npz(tmp_path / "model.npz", model)
    with np.load(tmp_path / "model.npz") as file:
        assert {f"/{name}" for name in file} == before


def test_a_snapshot_without_states(tmp_path):
    updater = recurrent_updater(tmp_path)
    save_npz(tmp_path / "new.npz", updater)
    with np.load(tmp_path / "new.npz", allow_pickle=True) as file:
        old = {name: file[name] for name in file if "states:" not in name}
        assert len(old) == len(file.files) - 2
    np.savez(tmp_path / "old.npz", **old)
    with pytest.warns(UserWarning, match="no state of /predictor/rnn, which begins"):
        load_npz(tmp_path / "old.npz", updater)


# --- Spectral normalisation ----------------------------------------------------------


class Spectral(chainer.Chain):
    def __init__(self, n_in, use_gamma):
        super().__init__()
        with self.init_scope():
            hook = SpectralNormalization(use_gamma=use_gamma)
            self.l1 = L.Linear(n_in, 10).add_hook(hook)
            self.l2 = L.Linear(10, 2)

    def forward(self, x):
        return self.l2(F.relu(self.l1(x)))


@pytest.mark.parametrize("use_gamma", [False, True])
@pytest.mark.parametrize("n_in", [4, None])
@pytest.mark.parametrize("saver", ["npz", "hdf5"])
def test_spectral_normalization_is_resumed(n_in, use_gamma, saver, tmp_path):
    save, load = {"npz": (save_npz, load_npz), "hdf5": (save_hdf5, load_hdf5)}[saver]

    def trainer_for(epochs):
        np.random.seed(1)
        model = L.Classifier(Spectral(n_in, use_gamma))
        return make_trainer(tmp_path, (epochs, "epoch"), model, optimizers.Adam())

    def evaluate(trainer):
        model = trainer.updater.get_optimizer("main").target.predictor
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            return model(DATA[:][0][0][None]).array

    right = trainer_for(4)
    right.run()
    half = trainer_for(2)
    half.run()
    save(tmp_path / "half.npz", half)
    resumed = trainer_for(4)
    np.random.seed(7)  # nothing is drawn anew
    load(tmp_path / "half.npz", resumed)
    np.testing.assert_array_equal(evaluate(resumed), evaluate(half))
    resumed = trainer_for(4)
    load(tmp_path / "half.npz", resumed)
    resumed.run()
    assert losses(resumed) == losses(right)


@pytest.mark.parametrize("n_in", [4, None])
def test_gamma_is_trained(n_in):
    np.random.seed(1)
    model = L.Classifier(Spectral(n_in, True))
    optimizer = optimizers.SGD(1.0).setup(model)
    model(*chainer.dataset.concat_examples(DATA[:10]))
    first = float(model.predictor.l1.gamma.array)
    singular = np.linalg.svd(model.predictor.l1.W.array)[1][0]
    assert first == pytest.approx(singular, rel=1e-5)
    for _ in range(3):
        optimizer.update(model, *chainer.dataset.concat_examples(DATA[:10]))
    assert float(model.predictor.l1.gamma.array) != first


def test_a_hook_can_be_taken_away_from_a_layer_without_input_size():
    link = L.Linear(None, 3).add_hook(SpectralNormalization(use_gamma=True))
    optimizers.SGD().setup(link)
    link.delete_hook("SpectralNormalization")
    assert [name for name, _ in link.namedparams()] == ["/W", "/b"]


# --- Layers that are never called ----------------------------------------------------


def with_spare(out, stop, optimizer):
    np.random.seed(0)
    model = L.Classifier(chainer.Chain(used=L.Linear(None, 2), spare=L.Linear(None, 2)))
    model.predictor.forward = model.predictor.used
    return make_trainer(out, (stop, "iteration"), model, optimizer())


@pytest.mark.parametrize("saver", SAVERS)
@pytest.mark.parametrize(
    "optimizer",
    [
        *(optimizers.Adam, optimizers.AMSGrad, optimizers.AdaBound),
        *(optimizers.MomentumSGD, optimizers.NesterovAG, optimizers.RMSprop),
    ],
)
def test_layers_that_are_never_called(optimizer, saver, tmp_path):
    save, load = SAVERS[saver]
    weights = []
    for halves in (False, True):
        trainer = with_spare(tmp_path, 4, optimizer)
        if halves:
            first = with_spare(tmp_path, 2, optimizer)
            first.run()
            save(tmp_path / "file.npz", first)
            load(tmp_path / "file.npz", trainer)
        trainer.run()
        model = trainer.updater.get_optimizer("main").target
        weights.append(model.predictor.used.W.array)
    np.testing.assert_array_equal(*weights)


@pytest.mark.parametrize("saver", SAVERS)
def test_a_state_that_is_missing_is_told(saver, tmp_path):
    """A layer that was called has one, but not of another optimizer."""
    save, load = SAVERS[saver]
    first = with_spare(tmp_path, 2, optimizers.SGD)
    first.run()
    save(tmp_path / "file.npz", first)
    with pytest.raises(KeyError):
        load(tmp_path / "file.npz", with_spare(tmp_path, 4, optimizers.Adam))


# --- HDF5 ----------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [False, True])
def test_a_trainer_with_a_log_in_hdf5(extension, tmp_path):
    trainer = make_trainer(tmp_path, (2, "epoch"))
    if extension:
        writer = extensions.snapshot_writers.SimpleWriter(savefun=save_hdf5)
        trainer.extend(
            extensions.snapshot(filename="file", writer=writer), trigger=(2, "epoch")
        )
    trainer.run()
    if not extension:
        save_hdf5(tmp_path / "file", trainer)
    resumed = make_trainer(tmp_path, (4, "epoch"))
    load_hdf5(tmp_path / "file", resumed)
    resumed.run()
    right = make_trainer(tmp_path / "right", (4, "epoch"))
    right.run()
    assert losses(resumed) == losses(right)
    assert len(json.loads((tmp_path / "log").read_text())) == 4


class Holder:
    """Serializes one value."""

    def __init__(self, value):
        self.value = value

    def serialize(self, serializer):
        self.value = serializer("value", self.value)


@pytest.mark.parametrize(
    "value, blank",
    [
        (b"ab", b""),
        (b"a\0b\0", b""),
        ("ab", ""),
        ("ä€𝄞", ""),
        (3, 0),
        (0.5, 0.0),
        (None, 1),
    ],
)
def test_hdf5_gives_back_what_it_got(value, blank, tmp_path):
    save_hdf5(tmp_path / "file", Holder(value))
    holder = Holder(blank)
    load_hdf5(tmp_path / "file", holder)
    assert holder.value == value and type(holder.value) is type(value)


def test_what_hdf5_cannot_hold_is_named(tmp_path, capsys):
    with pytest.raises(TypeError):
        save_hdf5(tmp_path / "file", {"odd": np.array([object()])})
    assert 'A key named "/odd" is unable to save' in capsys.readouterr().err
