"""Runs the experiments of examples/ with tiny settings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

ROOT = Path(__file__).parent.parent
EXPERIMENTS = [
    path
    for path in sorted((ROOT / "examples").glob("*.py"))
    if path.stem not in ("demo", "experiment", "train_mnist")
    if not path.stem.startswith("evidence")
]


def start(script, cwd, path=()):
    """Runs an experiment, with more folders to import from if given."""
    words = ["--seeds", "2", "--epoch", "1", "--out", cwd / "new" / "folder"]
    python_path = os.pathsep.join(map(str, [*path, ROOT]))
    run = subprocess.run(
        [sys.executable, script, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run


@pytest.mark.slow
@pytest.mark.parametrize("script", EXPERIMENTS, ids=lambda path: path.stem)
def test_prints_a_table_and_draws_a_picture(script, tmp_path):
    run = start(script, tmp_path)
    heading, rule, *rows = run.stdout.splitlines()
    assert set(rule) == set("| -")
    assert rows and all(row.count("|") == heading.count("|") for row in rows)
    assert all("±" in row and "nan" not in row for row in rows)
    picture = tmp_path / "new" / "folder" / f"{script.stem}.png"
    assert imread(picture).std() > 0.1
    results = picture.with_suffix(".json")  # that of the sweep, to go on from
    left = {p for p in tmp_path.rglob("*") if p.is_file() and p != results}
    assert left == {picture}


@pytest.mark.slow
def test_the_plain_script_learns(tmp_path):
    run = subprocess.run(
        [sys.executable, ROOT / "examples" / "train_mnist.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    *_, last = json.loads((tmp_path / "result" / "mnist" / "log").read_text())
    assert last["epoch"] == 10
    assert last["validation/main/accuracy"] > 0.9
    shares = [last[f"mixup/layer/{point}"] for point in ("input", "l1")]
    assert min(shares) > 0 and sum(shares) == pytest.approx(1)
    assert f"{last['validation/main/accuracy']:g}" in run.stdout.splitlines()[-1]


SWEEP = ROOT / "examples" / "sweep.py"


@pytest.mark.slow
def test_optuna_spares_the_sweep_what_falls_behind(tmp_path):
    pytest.importorskip("optuna", reason="the extra sweep")
    first = start(SWEEP, tmp_path)
    results = tmp_path / "new" / "folder" / "sweep.json"
    before = json.loads(results.read_text())
    # 3 settings are not up to Optuna; of 33 others, all have a seed, some have both.
    assert 3 * 2 + 33 < len(before) < 36 * 2
    scores = {}
    for key, score in before.items():
        setting = json.loads(key)
        scores.setdefault(setting.pop("seed"), {})[json.dumps(setting)] = score
    kept, dropped = [], []
    for setting, score in scores[0].items():
        (kept if setting in scores[1] else dropped).append(score)
    assert sum(kept) / len(kept) > sum(dropped) / len(dropped)

    # What is missing is computed again, and nothing else.
    last = list(before)[-1]
    changed = {key: value for key, value in before.items() if key != last}
    results.write_text(json.dumps(changed))
    assert start(SWEEP, tmp_path).stdout == first.stdout
    assert json.loads(results.read_text()) == before


@pytest.mark.slow
def test_without_optuna_the_sweep_is_complete(tmp_path):
    (tmp_path / "optuna.py").write_text("raise ImportError('no Optuna here')")
    start(SWEEP, tmp_path, path=[tmp_path])
    results = tmp_path / "new" / "folder" / "sweep.json"
    assert len(json.loads(results.read_text())) == 36 * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--seeds", "1"], "--seeds is 1"), (["--epoch", "0"], "--epoch is 0")],
)
def test_refuses_too_little_at_once(words, message, tmp_path):
    run = subprocess.run(
        [sys.executable, EXPERIMENTS[0], *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert message in run.stderr
    assert not list(tmp_path.iterdir())
