"""What is written is what is read."""

import json
import math

import numpy as np
import pytest

from chainer_mmix.analysis.calibration import reliability
from chainer_mmix.runs.files import read_json, write_json
from chainer_mmix.runs.log import read_log, series, write_log
from chainer_mmix.runs.mixup import MixupCounts
from chainer_mmix.runs.reliability import read_reliability, write_reliability


def strict(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_json_has_null_for_what_it_does_not_know(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": [math.nan, 1, -math.inf, {"b": (math.inf, "x", None)}]})
    assert strict(path) == {"a": [None, 1, None, {"b": [None, "x", None]}]}
    assert read_json(path, "") == strict(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_mixup_json(tmp_path):
    assert MixupCounts.read(tmp_path) is None
    counts, edges = np.histogram([0.1, 0.9, 0.9], bins=20, range=(0, 1))
    written = MixupCounts(
        {"alpha": 0.2, "layer_mix": ["input", "l1"]},
        {"none": 0, "l1": 3, "input": 1},
        {"l1": math.nan, "input": 0.5},
        {"mixup": 4, "cutmix": 0},
        edges,
        counts,
    )
    written.write(tmp_path / "mixup.json")
    strict(tmp_path / "mixup.json")
    read = MixupCounts.read(tmp_path)
    assert read[:2] == written[:2]
    assert read.loss == {"l1": None, "input": 0.5}
    assert read.method == written.method
    np.testing.assert_array_equal(read.bin_edges, edges)
    np.testing.assert_array_equal(read.counts, counts)
    # As the first versions wrote it.
    content = strict(tmp_path / "mixup.json")
    del content["settings"], content["loss"], content["method"]
    write_json(tmp_path / "mixup.json", content)
    assert MixupCounts.read(tmp_path).layer == written.layer


@pytest.mark.parametrize("diverged", [False, True])
def test_reliability_json(tmp_path, diverged):
    assert read_reliability(tmp_path) is None
    scores = np.random.RandomState(0).normal(size=(50, 4)) * 3
    bins = reliability(scores, np.arange(50) % 4)
    assert np.isnan(bins.accuracy).any()
    if diverged:
        scores[0] = np.nan
        bins = reliability(scores, np.arange(50) % 4)
        assert np.isnan(bins.accuracy[-1])
    write_reliability(tmp_path / "reliability.json", bins)
    strict(tmp_path / "reliability.json")
    for read, written in zip(read_reliability(tmp_path), bins, strict=True):
        np.testing.assert_array_equal(read, written)


def test_log(tmp_path):
    entries = [{"epoch": 1, "x": math.nan}, {"epoch": 2, "x": 0.1}, {"epoch": 3}]
    write_log(tmp_path, entries)
    log = read_log(tmp_path)
    assert json.dumps(log) == json.dumps(entries)
    epochs, values = series(log, "x", tmp_path / "log")
    np.testing.assert_array_equal(epochs, [1, 2])
    np.testing.assert_array_equal(values, [math.nan, 0.1])
