"""Runs the experiments of examples/ with tiny settings."""

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
    if path.stem not in ("demo", "experiment")
]


@pytest.mark.slow
@pytest.mark.parametrize("script", EXPERIMENTS, ids=lambda path: path.stem)
def test_prints_a_table_and_draws_a_picture(script, tmp_path):
    words = ["--seeds", "2", "--epoch", "1", "--out", tmp_path / "new" / "folder"]
    run = subprocess.run(
        [sys.executable, script, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    heading, rule, *rows = run.stdout.splitlines()
    assert set(rule) == set("| -")
    assert rows and all(row.count("|") == heading.count("|") for row in rows)
    assert all("±" in row and "nan" not in row for row in rows)
    picture = tmp_path / "new" / "folder" / f"{script.stem}.png"
    assert imread(picture).std() > 0.1
    results = picture.with_suffix(".json")  # that of the sweep, to go on from
    left = {p for p in tmp_path.rglob("*") if p.is_file() and p != results}
    assert left == {picture}


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
