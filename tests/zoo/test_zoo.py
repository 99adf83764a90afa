import json
import runpy
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import pytest

RUN = Path(__file__).with_name("run.py")


def test_the_table_counts_what_failed():
    errors = {"float64": 1e-14, "numba": 1e-6, "chainer": 2e-6}
    results = {
        "good": {"input": [3, 96, 96], "points": {"input": "", "stage1": ""}, **errors},
        "half": {
            "input": [1, 8],
            "points": {"input": "", "stage1": "RuntimeError: a branch"},
        },
        "wild": {"input": [4], "points": {}, **errors, "chainer": float("nan")},
        "none": {"input": [4], "points": {}},
        "bad": {"error": "ValueError: no such size"},
    }
    text = runpy.run_path(str(RUN))["table"](results)
    assert "Of 5 networks 4 run, and 1 train a mixed step" in text
    assert "within 1e-14" in text and "0.50 of Chainer's own in the median" in text
    assert "ten times it in 0." in text and "For 1, the random weights" in text
    rows = {line.split(" | ")[0][2:]: line for line in text.splitlines()}
    assert (
        "| 3×96×96 | input, stage1 | yes | 1.0e-14 | 1.0e-06 | 2.0e-06 |"
        in rows["good"]
    )
    assert "not at stage1: RuntimeError: a branch" in rows["half"]
    assert "ValueError: no such size" in rows["bad"]


def test_a_network_that_takes_too_long_is_ended(monkeypatch):
    run = runpy.run_path(str(RUN))
    sleep = [sys.executable, "-c", "input(); import time; time.sleep(60)"]
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **kwargs: popen(sleep, **kwargs))
    monkeypatch.setitem(run["Process"].__call__.__globals__, "MINUTES", 0.01)
    process = run["Process"]()
    result = process("mix", "slow")
    assert result["error"] == "not done in 0.01 minutes"
    assert process("gradients", "slow")["no_gradients"] == result["error"]


def test_ctrl_c_is_not_kept_waiting(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    run = runpy.run_path(str(RUN))
    process = mock.Mock(**{"stdout.readline": interrupt})
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: process)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        run["Process"]()("mix", "slow")
    for thread in set(threading.enumerate()) - before:
        thread.join(5)  # Python would wait for it, too
        assert not thread.is_alive()


@pytest.mark.slow
def test_it_goes_on_where_it_was_stopped(tmp_path):
    pytest.importorskip("chainercv2")
    command = [sys.executable, "-W", "ignore", RUN]
    subprocess.run([*command, "nin_cifar10"], cwd=tmp_path, check=True)
    records = tmp_path / "result" / "zoo" / "records.jsonl"
    (before,) = records.read_text().splitlines()
    assert 0 < json.loads(before)["numba"] < 1e-5
    subprocess.run([*command, "nin_cifar10", "voca8flame"], cwd=tmp_path, check=True)
    again, new = records.read_text().splitlines()
    assert again == before and json.loads(new)["name"] == "voca8flame"
    table = records.with_name("table.md").read_text()
    assert "Of 2 networks 2 run, and 2 train" in table
