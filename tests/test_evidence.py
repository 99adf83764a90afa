"""The runs of examples/evidence.py, small ones on digits."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from chainer_mmix.datasets import get_digits
from chainer_mmix.training import RunLock

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def evidence(monkeypatch):
    pytest.importorskip("threadpoolctl", reason="the extra fast")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = importlib.import_module("evidence")
    yield module
    for name in ("evidence", "evidence_run", "evidence_report", "experiment"):
        sys.modules.pop(name, None)


@pytest.fixture
def stage(evidence):
    return evidence.Stage("tiny", "100 digits", 100, 2, 1, 2, alphas=(1, 2))


def content(path):
    record = json.loads(path.read_text())
    log = [{k: v for k, v in e.items() if k != "elapsed_time"} for e in record["log"]]
    return {**record, "log": log, "seconds": None}


class Killed(BaseException):
    pass


def kill(epoch):
    raise Killed


@pytest.mark.parametrize("mixing", [{"mixup_hidden": False}, {"mixup_alpha": 1}])
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    evidence, stage, mixing, tmp_path
):
    pool, test = get_digits()
    settings = stage.settings(mixing, 0, "test")
    for name in ("whole", "broken"):
        words = [settings, pool, test, tmp_path / f"{name}.json", tmp_path / name]
        if name == "broken":
            with pytest.raises(Killed):
                evidence.train(*words, kill)
            assert not words[3].exists() and words[4].exists()
        evidence.train(*words)
        assert not words[4].exists()
    whole, broken = (content(tmp_path / f"{n}.json") for n in ("whole", "broken"))
    assert whole == broken
    assert [entry["epoch"] for entry in whole["log"]] == [1, 2]
    # All of the small test set, so that both are measured on the same images.
    accuracy = whole["log"][-1]["validation/main/accuracy"]
    assert whole["result"]["accuracy"] == pytest.approx(accuracy)


def test_all_runs_are_trained_once_and_shown(evidence, stage, tmp_path, capsys):
    records = evidence.Records(tmp_path / "records", [stage])
    data = [part[:300] for part in get_digits()]
    evidence.run_all(records, tmp_path / "work", *data)
    # Two candidates of the input and four of hidden layers; three settings, two seeds.
    paths = sorted((tmp_path / "records").rglob("*.json"))
    assert len(paths) == 6 + 6
    before = {path: path.stat().st_mtime_ns for path in paths}
    paths[0].unlink()
    evidence.run_all(records, tmp_path / "work", *data)
    assert [p for p in paths if p.stat().st_mtime_ns != before[p]] == [paths[0]]

    scores = {
        path.name: json.loads(path.read_text())["result"]["accuracy"]
        for path in paths
        if "validation" in path.name
    }
    for points in ("at0-", "at012", "at123"):
        assert any(points in name for name in scores)
    chosen = records.chosen(stage)["input mixup"]
    best = max((s for s in scores if "at0-" in s), key=scores.get)
    assert f"alpha{chosen['mixup_alpha']}-at0-" in best

    capsys.readouterr()
    evidence.report(records, tmp_path / "pictures")
    text = capsys.readouterr().out
    assert "Finished: 2 of 2 seeds." in text
    runs = records.results(stage)["no mixing"]
    mean = sum(50 * run["result"]["accuracy"] for run in runs.values())
    assert "| test accuracy (%) " in text and f"| {mean:.1f} ± " in text
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2


def test_settings_that_have_changed_are_trained_anew(evidence, stage, tmp_path):
    records = evidence.Records(tmp_path, [stage])
    settings = stage.settings({"mixup_hidden": False}, 0, "test")
    path = records.path(stage, settings)
    path.parent.mkdir()
    path.write_text(json.dumps({"settings": settings, "result": {}}))
    assert records.read(stage, settings) == {"settings": settings, "result": {}}
    assert records.read(stage, {**settings, "lr": 0.2}) is None


def test_a_run_that_another_process_is_at_is_left_to_it(evidence, stage, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    lock = RunLock(work)
    settings = stage.settings({"mixup_hidden": False}, 0, "test")
    with pytest.raises(evidence.LockedError):
        evidence.train(settings, *get_digits(), tmp_path / "record.json", work)
    lock.release()


def test_the_tables_of_the_page_are_those_of_the_records(evidence, tmp_path, capsys):
    root = EXAMPLES.parent
    folder = root / "benchmarks" / "results" / "evidence"
    evidence.report(evidence.Records(folder, evidence.STAGES), tmp_path)
    page = (root / "docs" / "evidence.md").read_text()
    for line in capsys.readouterr().out.splitlines():
        assert line.lstrip("#") in page
