import csv
import io
import json
import math

import pytest

from chainer_mmix.runs.compare import compare_groups
from chainer_mmix.runs.groups import group_runs
from chainer_mmix.runs.run import read_run
from chainer_mmix.runs.table import FORMATS


@pytest.fixture
def comparison(write_run):
    folders = [
        write_run(f"{mixup}{seed}", (0.5, accuracy), mixup=mixup, alpha=0.2, seed=seed)
        for mixup, seed, accuracy in [
            ("none", 0, 0.80),
            ("none", 1, 0.82),
            ("manifold", 0, 0.90),
            ("manifold", 1, 0.94),
        ]
    ]
    return compare_groups(group_runs([read_run(f) for f in folders]), ["careful"])


def test_text_is_aligned_and_rounded(comparison):
    lines = FORMATS["text"](comparison).splitlines()
    heading, none, manifold = lines[:3]
    for column in ("runs (seeds)", "best acc.", "final acc.", "epochs", "time (s)"):
        start = heading.index(column)
        for line in (none, manifold):
            assert line[start - 2 : start] == "  "
            assert line[start] != " "
    assert none.startswith("mixup=none")
    assert "2 (0 1)" in none
    assert "0.8100 ± 0.0141" in none
    assert "19.00 ± 1.41" in none
    assert manifold.startswith("mixup=manifold alpha=0.2  ")


def test_text_explains_best_and_final_and_the_difference(comparison):
    text = FORMATS["text"](comparison)
    assert "best: the highest of all epochs, picked on the validation data" in text
    assert "final: after the last epoch" in text
    # By hand: the seeds differ by 10 and 12 points, 11 ± sqrt(2 / 2); t = 11 at one
    # degree of freedom, so that 2 * scipy.stats.t.sf(11, 1) is 0.058.
    assert "+11.00 ± 1.00" in text
    assert "p = 0.058, not significant at the 5 % level (paired t-test)" in text


def test_a_single_run_shows_no_deviation_and_no_verdict(write_run):
    folders = [write_run(m, mixup=m) for m in ("none", "manifold")]
    groups = group_runs([read_run(f) for f in folders])
    text = FORMATS["text"](compare_groups(groups))
    assert "± 0" not in text
    assert "significant" not in text
    assert "A standard error takes two runs or more" in text


def test_markdown_is_a_pipe_table(comparison):
    lines = FORMATS["markdown"](comparison).splitlines()
    assert {line.count("|") for line in lines[:4]} == {9}
    assert set(lines[1]) == set("|- ")
    assert lines[3].startswith("| mixup=manifold alpha=0.2 | 2 (0 1) |")


def test_csv_reads_back(comparison):
    none, manifold = csv.DictReader(io.StringIO(FORMATS["csv"](comparison)))
    assert none["setting"] == "mixup=none"
    assert none["seeds"] == "0 1"
    assert none["difference_points"] == ""
    assert float(manifold["final_accuracy_mean"]) == pytest.approx(0.92)
    assert float(manifold["difference_points"]) == pytest.approx(11.0)
    assert float(manifold["standard_error_points"]) == pytest.approx(1)
    assert manifold["test"] == "paired t-test"


def test_json_reads_back_strictly(write_run, comparison):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(FORMATS["json"](comparison), parse_constant=refuse)
    assert content["baseline"] == "mixup=none"
    assert content["warnings"] == ["careful"]
    assert content["settings"][1]["best_accuracy_mean"] == pytest.approx(0.92)
    diverged = write_run("diverged", (0.5, math.nan), record=False)
    groups = group_runs([read_run(diverged)])
    content = json.loads(FORMATS["json"](compare_groups(groups)), parse_constant=refuse)
    assert content["settings"][0]["final_accuracy_mean"] is None
    assert content["settings"][0]["best_accuracy_mean"] == 0.5
