"""Runs of several ranks, compared with one process that does all of their work."""

import contextlib
import json
from unittest import mock

import numpy as np
import pytest

from chainer_mmix.cli import train
from chainer_mmix.mixing.draw import MixupDraw
from chainer_mmix.mixing.policy import MixupPolicy
from chainer_mmix.training import read_snapshot

QUICK = ["--model", "cnn", "--train-size", "50", "--epoch", "2", "--augment"]
QUICK += ["--quiet", "--alpha", "2"]


@contextlib.contextmanager
def mixing_in_groups(n):
    """Lets one process draw what n ranks draw, each for its part of the minibatch."""
    draw = MixupPolicy.draw

    def draw_all(self, batch_size, points=()):
        before = self._rng.bit_generator.state
        perm = []
        for rank in range(n):
            self._rng.bit_generator.state = before
            self._rank, self._n_rank = rank, n
            one = draw(self, batch_size // n, points)
            perm.append(one.perm + rank * batch_size // n)
        return MixupDraw(one.layer_mix, one.lam, np.concatenate(perm))

    with mock.patch.object(MixupPolicy, "draw", draw_all):
        yield


def assert_close(out, expected):
    """Compares logs and weights of two runs in float32."""
    logs = [json.loads((folder / "log").read_text()) for folder in (out, expected)]
    assert len(logs[0]) == 2
    for one, other in zip(*logs, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"elapsed_time"}:
            assert one[key] == pytest.approx(other[key], rel=1e-4, abs=1e-6), key
    (name,) = (path.name for path in out.glob("best_*"))
    one, other = (read_snapshot(folder / name) for folder in (out, expected))
    for key in other:
        if key.startswith("updater/model"):
            scale = np.abs(other[key].astype(float)).max()
            error = np.abs(one[key].astype(float) - other[key]).max()
            assert error <= 2e-5 * scale, key


@pytest.mark.parametrize(
    "n, more", [(2, ["--gpus=-1,-1", "--graph"]), (3, ["--workers", "1"])]
)
def test_ranks_do_what_one_process_does(n, more, in_ranks, tmp_path):
    with mixing_in_groups(n):
        words = [*QUICK, "--common-draw", "--optimizer", "sgd"]
        single = [*words, "--batchsize", "12", "--out", str(tmp_path / "one")]
        assert train.main(single) == 0
    words += ["--batchsize", str(12 // n), "--out", str(tmp_path / "ranks"), *more]
    # By --gpus, it starts the ranks itself; a negative number is a CPU.
    by_itself = any("--gpus" in word for word in more)
    done = in_ranks(0 if by_itself else n, "-m", "chainer_mmix.cli", "train", *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert_close(tmp_path / "ranks", tmp_path / "one")
    # One of each, whatever the number of ranks.
    assert done.stdout.count("device:") == done.stdout.count("final") == 1
    files = {path.name for path in (tmp_path / "ranks").iterdir()}
    assert files == {path.name for path in (tmp_path / "one").iterdir()}
    draws = [
        json.loads((tmp_path / name / "mixup.json").read_text())
        for name in ("ranks", "one")
    ]
    assert draws[0]["layer"] == {k: n * v for k, v in draws[1]["layer"].items()}
    record = json.loads((tmp_path / "ranks" / "run.json").read_text())
    assert record["ranks"] == record["setting"]["values"]["ranks"] == n
