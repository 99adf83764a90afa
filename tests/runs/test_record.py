import json
from pathlib import Path

import chainer
import chainer.functions as F
import numpy as np
import pytest

import chainer_revive
from chainer_mmix.runs.files import RunError
from chainer_mmix.runs.groups import group_runs
from chainer_mmix.runs.record import RunRecord, Setting, summary
from chainer_mmix.runs.run import Run, read_run

ACCURACY = "validation/main/accuracy"


def make(out, **kwargs):
    device = chainer.get_device("@numpy")
    return RunRecord(out, {"lr": 0.1, "seed": 3}, "train --lr 0.1", device, 3, **kwargs)


def test_record_of_a_run(tmp_path):
    record = make(tmp_path)
    record.start()
    started = json.loads((tmp_path / "run.json").read_text())
    assert started["status"] == "running"
    assert started["arguments"] == {"lr": 0.1, "seed": 3}
    assert started["command"] == "train --lr 0.1"
    assert started["seed"] == 3
    assert started["device"] == "@numpy"
    assert started["device_name"]
    assert started["resumed_from"] is None
    assert started["versions"]["chainer"] == "7.8.1"
    assert started["versions"]["numpy"] == np.__version__
    assert started["revive"] == chainer_revive.state()
    assert started["revive"]["cpu"] in ("chainer", "numpy", "numba")

    log = [{"epoch": i + 1, ACCURACY: a} for i, a in enumerate([0.5, 0.9, 0.9, 0.7])]
    record.finish(log, 12.5)
    finished = json.loads((tmp_path / "run.json").read_text())
    (start,) = started["starts"]
    assert (start["from_epoch"], start["to_epoch"]) == (0, None)
    assert finished == started | {
        "starts": [start | {"to_epoch": 4}],
        "status": "finished",
        "duration": 12.5,
        "epoch": 4,
        "best_accuracy": 0.9,
        "best_epoch": 2,
        "final_accuracy": 0.7,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("value", [Path("x"), np.int64(3), np.arange(3), [F.relu]])
def test_what_cannot_be_recorded_is_named_before_the_run(tmp_path, value):
    device = chainer.get_device("@numpy")
    message = r"'own' cannot be recorded .*: give numbers of Python, strings or lists"
    with pytest.raises(TypeError, match=message):
        RunRecord(tmp_path, {"lr": 0.1, "own": value}, "x", device, 0)
    with pytest.raises(TypeError, match=message):
        make(tmp_path, data={"own": value})
    RunRecord(tmp_path, {"own": [1, None, {"a": "b"}, (2.5,)]}, "x", device, 0).start()


def test_record_of_a_failure(tmp_path):
    record = make(tmp_path, resumed_from=tmp_path / "snapshot_iter_9")
    record.start()
    record.fail("no more electricity", [], 1.0)
    failed = json.loads((tmp_path / "run.json").read_text())
    assert (failed["status"], failed["reason"]) == ("failed", "no more electricity")
    assert failed["resumed_from"] == "snapshot_iter_9"
    assert failed["best_accuracy"] is None


def test_accuracies_that_are_not_numbers_count_as_missing():
    log = [{"epoch": 1, ACCURACY: 0.5}, {"epoch": 2, ACCURACY: float("nan")}]
    assert summary(log) == {
        "epoch": 2,
        "best_accuracy": 0.5,
        "best_epoch": 1,
        "final_accuracy": None,
        "test_accuracy": None,
    }


def start_of(folder, epoch, batchsize, before=None):
    """Runs to an epoch, from the end of one before."""
    folder.mkdir(exist_ok=True)
    device = chainer.get_device("@numpy")
    arguments = {"batchsize": batchsize, "seed": 0}
    setting = Setting({"batchsize": batchsize, "model": "cnn"}, epoch)
    record = RunRecord(
        *(folder, arguments, f"train --epoch {epoch}", device, 0),
        resumed_from=None if before is None else folder / f"snapshot_iter_{before}",
        epoch=before or 0,
        setting=setting,
    )
    log = [{"epoch": i + 1, ACCURACY: 0.5} for i in range(epoch)]
    record.start(log[: before or 0])
    record.finish(log, 1.0)
    (folder / "log").write_text(json.dumps(log))
    return json.loads((folder / "run.json").read_text())


def epochs(record):
    return [
        (s["from_epoch"], s["to_epoch"], s["arguments"]["batchsize"])
        for s in record["starts"]
    ]


def test_each_start_keeps_its_arguments_and_its_epochs(tmp_path):
    assert epochs(start_of(tmp_path, 8, 20)) == [(0, 8, 20)]
    # An older snapshot begins another branch.
    record = start_of(tmp_path, 9, 100, before=7)
    assert epochs(record) == [(0, 7, 20), (7, 9, 100)]
    assert record["arguments"]["batchsize"] == 100
    assert record["resumed_from"] == "snapshot_iter_7"
    assert [s["resumed_from"] for s in record["starts"]] == [None, "snapshot_iter_7"]
    assert [s["command"] for s in record["starts"]] == [
        "train --epoch 8",
        "train --epoch 9",
    ]
    assert all(s["versions"]["chainer"] == "7.8.1" for s in record["starts"])
    record = start_of(tmp_path, 12, 100, before=9)
    assert epochs(record) == [(0, 7, 20), (7, 9, 100), (9, 12, 100)]
    # Back before all of that but the first.
    record = start_of(tmp_path, 6, 50, before=5)
    assert epochs(record) == [(0, 5, 20), (5, 6, 50)]
    setting = read_run(tmp_path).setting
    assert setting.values == {"batchsize": "20 to epoch 5, then 50", "model": "cnn"}


def test_a_run_that_was_changed_on_the_way_is_another_setting(tmp_path):
    start_of(tmp_path / "20", 4, 20)
    start_of(tmp_path / "resumed", 2, 20)
    start_of(tmp_path / "resumed", 4, 20, before=2)
    start_of(tmp_path / "changed", 2, 20)
    start_of(tmp_path / "changed", 4, 100, before=2)
    start_of(tmp_path / "100", 4, 100)
    runs = [read_run(tmp_path / n) for n in ("20", "resumed", "changed", "100")]
    groups = group_runs(runs)
    assert [(g.label, len(g.runs)) for g in groups] == [
        ("batchsize=20", 2),
        ("batchsize=20 to epoch 2, then 100", 1),
        ("batchsize=100", 1),
    ]


def test_the_start_of_a_record_of_an_older_version_is_kept(tmp_path):
    old = {"arguments": {"batchsize": 20}, "command": "old", "resumed_from": None}
    (tmp_path / "run.json").write_text(json.dumps({**old, "epoch": 8}))
    record = start_of(tmp_path, 9, 100, before=8)
    assert epochs(record) == [(0, 8, 20), (8, 9, 100)]
    assert record["starts"][0]["command"] == "old"
    (tmp_path / "run.json").write_text(json.dumps({**old, "resumed_from": "x"}))
    assert epochs(start_of(tmp_path, 9, 100, before=8))[0] == (None, 8, 20)
    # It tells its setting by its arguments.
    setting = Run(tmp_path, [], {"arguments": {"model": "cnn", "epoch": 3}}).setting
    assert (setting.values, setting.epoch) == ({"model": "cnn"}, 3)
    assert (setting.title, setting.mixes) == ("cnn", None)


def test_a_run_that_is_killed_leaves_what_is_known(tmp_path):
    device = chainer.get_device("@numpy")
    log = [{"epoch": 1, ACCURACY: 0.5, "elapsed_time": 2.5}]
    snapshot = tmp_path / "snapshot_iter_1"
    record = RunRecord(tmp_path, {}, "", device, 0, resumed_from=snapshot, epoch=1)
    record.start(log)
    content = json.loads((tmp_path / "run.json").read_text())
    assert (content["status"], content["epoch"]) == ("running", 1)
    assert (content["duration"], content["best_accuracy"]) == (2.5, 0.5)
    assert content["starts"][0]["to_epoch"] is None


def test_what_a_later_version_adds_to_a_setting_is_left_alone():
    record = {"setting": {"values": {"a": 1}, "colour": "red"}}
    assert Run(Path(), [], record).setting == Setting({"a": 1})


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"setting": []}', '{"setting": {"epoch": 1}}', '{"starts": [1]}'],
)
def test_a_damaged_record_is_named_before_anything_is_lost(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"run\.json is not"):
        start_of(tmp_path, 2, 20, before=1)
    assert (tmp_path / "run.json").read_text() == content
