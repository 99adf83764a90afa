import json
import random

import chainer
import chainer.links as L
import numpy as np
import pytest
from chainer.dataset import concat_examples
from chainer.datasets import DictDataset, TupleDataset
from scipy.special import log_softmax

from chainer_mmix import ManifoldMixupClassifier, training
from chainer_mmix.models import CNN
from chainer_mmix.training.extensions import DivergedError


def test_same_seed_gives_the_same_log_to_the_bit(tmp_path, make_trainer, log_of):
    logs = []
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        trainer = make_trainer(tmp_path / out, seed=seed)
        trainer.run()
        logs.append(log_of(trainer))
    assert logs[0] == logs[1]
    assert logs[0] != logs[2]


@pytest.mark.parametrize(
    "optimizer, lr_drop",
    [("adam", ()), ("adamw", (1,)), ("momentum_sgd", (3,)), ("nesterov", (1, 3))],
)
def test_resume_equals_a_run_without_a_break(
    tmp_path, make_trainer, log_of, serialized, optimizer, lr_drop
):
    setting = {"optimizer": optimizer, "lr_drop": lr_drop}
    straight = make_trainer(tmp_path / "straight", epoch=4, **setting)
    straight.run()

    first = {**setting, "lr_drop": [drop for drop in lr_drop if drop < 2]}
    make_trainer(tmp_path / "broken", epoch=2, **first).run()
    random.seed(99)
    np.random.seed(99)
    resumed = make_trainer(tmp_path / "broken", epoch=4, **setting)
    snapshot = training.find_snapshot(tmp_path / "broken")
    training.load_snapshot(snapshot, resumed)
    resumed.run()

    assert [entry["epoch"] for entry in log_of(resumed)] == [1, 2, 3, 4]
    assert log_of(resumed) == log_of(straight)
    models = [t.updater.get_optimizer("main").target for t in (straight, resumed)]
    for name, value in serialized(models[0]).items():
        np.testing.assert_array_equal(serialized(models[1])[name], value)
    files = [tmp_path / name / "mixup.json" for name in ("straight", "broken")]
    assert files[0].read_text() == files[1].read_text()
    for key in ("loss", "accuracy"):
        plots = [t.get_extension(f"plot_{key}")._data for t in (straight, resumed)]
        assert json.loads(json.dumps(plots[0])) == json.loads(json.dumps(plots[1]))


def test_keys_of_the_log(tmp_path, make_trainer, log_of):
    trainer = make_trainer(tmp_path)
    trainer.run()
    on_disk = json.loads((tmp_path / "log").read_text())
    assert set(on_disk[-1]) == {
        "main/loss",
        "main/accuracy",
        "main/lam",
        "validation/main/loss",
        "validation/main/accuracy",
        "mixup/layer/none",
        "mixup/layer/0",
        "mixup/layer/1",
        "mixup/loss/0",
        "mixup/loss/1",
        "lr",
        "epoch",
        "iteration",
        "elapsed_time",
    }
    assert on_disk[-1]["lr"] == 0.01


def test_files(tmp_path, make_trainer):
    make_trainer(tmp_path, epoch=3, n_retains=2).run()
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {
        "log",
        "loss.png",
        "accuracy.png",
        "mixup.json",
        "snapshot_iter_7",
        "snapshot_iter_10",
    }


def test_evaluation_leaves_statistics_and_random_state_alone(
    tmp_path, make_trainer, serialized
):
    trainer = make_trainer(tmp_path)
    trainer.updater.update()
    model = trainer.updater.get_optimizer("main").target
    before = serialized(model)
    assert any(key.endswith("bn/avg_mean") for key in before)
    states = (np.random.get_state()[1].tolist(), random.getstate())

    trainer.get_extension("validation")(trainer)

    after = serialized(model)
    assert before.keys() == after.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states


def test_validation_is_that_of_all_examples_together(tmp_path, make_trainer, log_of):
    trainer = make_trainer(tmp_path, epoch=1)
    trainer.run()
    net = trainer.updater.get_optimizer("main").target.predictor
    x, t = concat_examples(
        trainer.get_extension("validation").get_iterator("main").dataset
    )
    with chainer.using_config("train", False):
        y = net(x).array.astype(np.float64)
    (entry,) = log_of(trainer)
    expected = -log_softmax(y, axis=1)[np.arange(30), t].mean()
    assert entry["validation/main/loss"] == pytest.approx(expected, rel=1e-6)
    expected = (y.argmax(axis=1) == t).mean()
    assert entry["validation/main/accuracy"] == pytest.approx(expected, rel=1e-6)


def test_building_leaves_no_state_in_the_network(tmp_path, make_trainer):
    class Recurrent(chainer.Sequential):
        def __init__(self):
            super().__init__(L.LSTM(None, 8), L.Linear(None, 10))

    trainer = make_trainer(tmp_path, net=Recurrent, alpha=0)
    net = trainer.updater.get_optimizer("main").target.predictor
    assert net[0].h is None and net[1].W.is_initialized


def test_nan_keeps_the_last_good_snapshot(tmp_path, make_trainer):
    trainer = make_trainer(tmp_path, epoch=5, n_retains=1)
    optimizer = trainer.updater.get_optimizer("main")

    @chainer.training.make_extension(trigger=(1, "iteration"), priority=1000)
    def spoil(trainer):
        if trainer.updater.iteration == 9:  # the third epoch ends with the tenth
            optimizer.target.predictor.l2.b.array[0] = np.nan

    trainer.extend(spoil)
    with pytest.raises(
        DivergedError, match=r"loss became nan in epoch 3 \(iteration 10"
    ):
        trainer.run(show_loop_exception_msg=False)
    snapshot = training.find_snapshot(tmp_path)
    assert snapshot.name == "snapshot_iter_7"
    for key, value in training.read_snapshot(snapshot).items():
        if key.startswith("updater/model:"):
            assert value.dtype.kind != "f" or np.isfinite(value).all(), key
    log = json.loads((tmp_path / "log").read_text())
    assert len(log) == 2
    assert "NaN" not in (tmp_path / "log").read_text()


def test_parameters_are_checked_when_the_loss_is_fine(tmp_path, make_trainer):
    trainer = make_trainer(tmp_path, epoch=2)
    target = trainer.updater.get_optimizer("main").target

    @chainer.training.make_extension(trigger=(1, "epoch"), priority=1000)
    def spoil(trainer):
        target.predictor.l2.b.array[0] = np.inf

    trainer.extend(spoil)
    with pytest.raises(
        DivergedError, match="parameter became NaN or infinite in epoch 1"
    ):
        trainer.run(show_loop_exception_msg=False)
    assert training.find_snapshot(tmp_path) is None


@pytest.mark.parametrize("fails", [False, True])
def test_run_keeps_the_record(tmp_path, make_trainer, fails):
    trainer = make_trainer(tmp_path, epoch=2)
    device = chainer.get_device("@numpy")
    record = training.RunRecord(tmp_path, {"seed": 0}, "x", device, 0)

    @chainer.training.make_extension(trigger=(4, "iteration"), priority=-1000)
    def fail(trainer):
        assert json.loads((tmp_path / "run.json").read_text())["status"] == "running"
        if fails:
            raise RuntimeError("out of paper")

    trainer.extend(fail)
    record.start()
    if fails:
        with pytest.raises(RuntimeError):
            training.run(trainer, record)
    else:
        training.run(trainer, record)
    content = json.loads((tmp_path / "run.json").read_text())
    log = json.loads((tmp_path / "log").read_text())
    assert content["status"] == ("failed" if fails else "finished")
    assert content["reason"] == ("out of paper" if fails else None)
    assert content["epoch"] == (1 if fails else 2)
    assert content["final_accuracy"] == log[-1]["validation/main/accuracy"]
    assert content["duration"] >= log[-1]["elapsed_time"] > 0


def test_a_run_without_a_record_keeps_others_out_too(tmp_path, make_trainer):
    trainer = make_trainer(tmp_path, epoch=1)

    @chainer.training.make_extension(trigger=(1, "epoch"), priority=-1000)
    def intrude(trainer):
        with pytest.raises(training.LockedError, match="another run is writing"):
            training.RunLock(tmp_path)

    trainer.extend(intrude)
    training.run(trainer, None)
    assert not (tmp_path / "run.json").exists()
    before = (tmp_path / "log").read_bytes()
    with pytest.raises(ValueError, match="holds another run"):
        training.run(make_trainer(tmp_path, epoch=1), None)
    assert (tmp_path / "log").read_bytes() == before


def test_table_has_no_escape_codes_in_a_file(tmp_path, make_trainer, capsys):
    model = make_trainer(tmp_path).updater.get_optimizer("main").target
    images = np.zeros((8, 1, 8, 8), np.float32)
    dataset = TupleDataset(images, np.zeros(8, np.int32))
    optimizer = training.make_optimizer("adam", model, 0.01)
    device = chainer.get_device("@numpy")
    where = {"epoch": 1, "batchsize": 4, "out": tmp_path, "device": device}
    training.build_trainer(optimizer, dataset, dataset, **where).run()
    out = capsys.readouterr().out
    assert "\033" not in out
    header, row = out.splitlines()
    assert header.split()[0] == "epoch"
    assert len(header.split()) == len(row.split()) == 8


def test_examples_and_numbers_in_the_wrong_form(tmp_path, make_trainer):
    model = make_trainer(tmp_path).updater.get_optimizer("main").target
    optimizer = training.make_optimizer("adam", model, 0.01)
    images, labels = np.zeros((8, 1, 8, 8), np.float32), np.zeros(8, np.int32)
    good, words = TupleDataset(images, labels), TupleDataset(images, labels.astype(str))
    out, device = tmp_path / "out", chainer.get_device("@numpy")

    def build(train=good, test=good, **changed):
        where = {"epoch": 1, "batchsize": 4, "out": out, "device": device, **changed}
        training.build_trainer(optimizer, train, test, **where)

    join = r"type ndarray, but pairs .* are needed: join .*TupleDataset\(x, t\)"
    for wrong, error in (((images, labels), join), (images, join), (words, "a label")):
        with pytest.raises(TypeError, match=error):
            build(test=wrong)
    for wrong in ((images, labels), list(words)):
        with pytest.raises(TypeError, match="of train is"):
            build(train=wrong)
    for number in ("epoch", "batchsize"):
        with pytest.raises(ValueError, match=f"{number} must be .* >= 1, not 0"):
            build(**{number: 0})
    for name, late in (("lr_drop", [1, 5]), ("warmup", 5)):
        with pytest.raises(ValueError, match=f"{name} 5 is not before the end"):
            build(epoch=5, **{name: late})
    assert not out.exists()
    build()


@pytest.mark.parametrize("dtype", ["float32", "mixed16"])
@pytest.mark.parametrize("workers", [0, 1])
def test_examples_by_name_train_as_pairs(tmp_path, log_of, dtype, workers):
    x = np.random.RandomState(0).rand(24, 1, 8, 8).astype(np.float32)
    t = np.arange(24, dtype=np.int32) % 3
    cpu = chainer.get_device("@numpy")
    logs = []
    for key, data in ((-1, TupleDataset(x, t)), ("t", DictDataset(x=x, t=t))):
        with chainer.using_config("dtype", training.DTYPES[dtype]):
            training.set_seed(0, cpu)
            model = ManifoldMixupClassifier(CNN(3), seed=0, label_key=key)
            optimizer = training.make_optimizer("sgd", model, 0.1)
            training.scale_loss(optimizer)
            settings = {"epoch": 2, "batchsize": 8, "workers": workers, "quiet": True}
            out = tmp_path / str(key)
            trainer = training.build_trainer(
                optimizer, data, data, out=out, device=cpu, **settings
            )
            trainer.run()
        trainer.updater.get_iterator("main").finalize()
        logs.append(log_of(trainer))
    assert logs[0] == logs[1]
