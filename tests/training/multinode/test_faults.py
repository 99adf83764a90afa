"""Runs of two ranks that something happens to."""

import json
import shutil
import time

import numpy as np
import pytest

from chainer_mmix.cli import train
from chainer_mmix.training import LockedError, RunLock, read_snapshot

QUICK = ["--model", "cnn", "--train-size", "40", "--batchsize", "4", "--augment"]
QUICK += ["--quiet", "--epoch", "3"]  # of 5 iterations
# Does something on a rank when the given iteration is done.
CHILD = """
import os, signal, sys, time
import chainer_mmix
from chainer.training.updaters import StandardUpdater
from chainer_mmix.cli.main import main
update = StandardUpdater.update
def counting(self):
    update(self)
    if self.iteration == 8 and os.environ["PMI_RANK"] == "{rank}":
        print("NOW", time.time(), file=sys.stderr, flush=True)
        {what}
StandardUpdater.update = counting
if __name__ == "__main__":
    sys.exit(main(["train", *{words}]))
"""


@pytest.fixture
def disturb(in_ranks, tmp_path):
    def run(what, rank, *words):
        script = tmp_path / "child.py"
        words = [*QUICK, "--out", str(tmp_path / "run"), *words]
        script.write_text(CHILD.format(rank=rank, what=what, words=words))
        done = in_ranks(2, script)
        now = float(done.stderr.partition("NOW ")[2].split()[0])
        return done, time.time() - now

    return run


@pytest.fixture(scope="module")
def undisturbed(in_ranks, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    words = [*QUICK, "--out", out, "--keep", "3"]
    done = in_ranks(2, "-m", "chainer_mmix.cli", "train", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return out


def is_free(out):
    try:
        RunLock(out).release()
    except LockedError:
        return False
    return True


def log(out):
    entries = json.loads((out / "log").read_text())
    return [{k: v for k, v in e.items() if k != "elapsed_time"} for e in entries]


def assert_same(out, expected):
    """Compares two runs to the bit."""
    assert log(out) == log(expected)
    for name in ("mixup.json", "loss.png"):
        assert (out / name).read_bytes() == (expected / name).read_bytes()
    one, other = (read_snapshot(o / "snapshot_iter_15") for o in (out, expected))
    assert one.keys() == other.keys()
    for key in one:
        if "elapsed" not in key and not key.endswith("/_log"):
            np.testing.assert_array_equal(one[key], other[key], key)


def test_a_signal_to_one_rank_stops_all_and_they_go_on_to_the_bit(
    disturb, in_ranks, undisturbed, tmp_path
):
    done, _ = disturb("os.kill(os.getpid(), signal.SIGTERM)", 1)
    assert done.returncode == 143
    assert done.stderr.count("stopped by SIGTERM") == 1
    out = tmp_path / "run"
    assert (out / "snapshot_iter_8").exists()
    done = in_ranks(2, "-m", "chainer_mmix.cli", "train", "--resume", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert_same(out, undisturbed)


def test_ranks_go_on_as_often_as_they_are_started(in_ranks, tmp_path):
    out = tmp_path / "run"
    words = ["--model", "cnn", "--train-size", "96", "--batchsize", "8", "--quiet"]
    for epoch in (1, 2, 3):
        more = ["--resume"] if epoch > 1 else []
        command = ["-m", "chainer_mmix.cli", "train", *words, "--layer-mix", "0", "1"]
        done = in_ranks(2, *command, "--epoch", epoch, "--out", out, *more)
        assert done.returncode == 0, done.stderr
    for entry in log(out):
        parts = [
            entry[f"mixup/layer/{point}"] * entry.get(f"mixup/loss/{point}", 0)
            for point in ("0", "1", "none")
        ]
        assert sum(parts) == pytest.approx(entry["main/loss"], rel=1e-6)


def test_any_number_of_ranks_goes_on(in_ranks, undisturbed, tmp_path, capsys):
    def last(run):
        return log(run)[-1]

    for n in (1, 3):
        out = tmp_path / f"run{n}"
        shutil.copytree(undisturbed, out)
        words = ["--resume", str(out / "snapshot_iter_10"), "--batchsize", "4"]
        if n == 1:
            assert train.main(words) == 0
            said = capsys.readouterr().err
        else:
            done = in_ranks(n, "-m", "chainer_mmix.cli", "train", *words)
            assert done.returncode == 0, done.stderr
            said = done.stderr
        assert f"ranks was 2 and is {n}" in said
        entries = log(out)
        assert entries[:2] == log(undisturbed)[:2]
        assert entries[2]["epoch"] == 3
        assert entries[2]["iteration"] == 10 + -(-40 // (4 * n))


@pytest.mark.parametrize(
    "what, rank, said",
    [
        ("raise RuntimeError('boom')", 1, ["RuntimeError: boom"]),
        pytest.param(
            *("os.kill(os.getpid(), signal.SIGKILL)", 1, ["Killed"]),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("sys.exit()", 1, ["rank 1 has not answered"]), marks=pytest.mark.slow
        ),
        pytest.param(
            *("time.sleep(1000)", 0, ["rank 0 has been at one step", "time.sleep"]),
            marks=pytest.mark.slow,
        ),
        ("os._exit(0)", 1, ["rank 1 has ended before its time"]),
        ("os.kill(os.getpid(), signal.SIGSTOP)", 0, ["rank 0 has not answered"]),
    ],
)
def test_a_rank_that_is_lost_ends_all(what, rank, said, disturb, tmp_path):
    done, seconds = disturb(what, rank)
    assert done.returncode != 0
    assert seconds < 10
    for text in said:
        assert (done.stderr + done.stdout).count(text) == 1
    # The next start goes on, here without ranks.
    while not is_free(tmp_path / "run"):
        time.sleep(0.2)  # mpiexec has ended before the processes that it killed
    assert train.main(["--resume", str(tmp_path / "run"), "--quiet"]) == 0
    assert [entry["epoch"] for entry in log(tmp_path / "run")] == [1, 2, 3]


def test_nan_on_one_rank_stops_all(disturb):
    nan = "next(self.get_optimizer('main').target.params()).array[...] = float('nan')"
    done, seconds = disturb(nan, 1)
    assert done.returncode == 1
    assert seconds < 10
    assert done.stderr.count("the loss became nan in epoch 2 (iteration 9)") == 1
    assert "Traceback" not in done.stderr
