import json

import chainer
import numpy as np

from chainer_mmix.runs.record import RunRecord, summary

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


def test_record_of_a_failure(tmp_path):
    record = make(tmp_path, resumed_from="snapshot_iter_9")
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
    }
