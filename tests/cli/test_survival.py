"""Runs that something happens to, each compared with one that nothing happened to."""

import contextlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time

import numpy
import pytest

from chainer_mmix.cli import train
from chainer_mmix.training import RunLock, read_snapshot

QUICK = ["--model", "cnn", "--train-size", "40", "--batchsize", "8", "--augment"]
QUICK += ["--quiet", "--epoch", "3"]  # of 5 iterations
LOG = "extensions/LogReport/_log"
# Does something when the given iteration is done.
CHILD = """
import os, resource, shutil, signal, sys
sys.path[:0] = {path}
import chainer_mmix
from chainer.training.updaters import StandardUpdater
from chainer_mmix.cli.main import main
update = StandardUpdater.update
def counting(self):
    update(self)
    if self.iteration == {at}:
        {what}
StandardUpdater.update = counting
sys.exit(main(["train", *{words}]))
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train.main([*QUICK, "--out", str(out)]) == 0
    return out


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def child(words, at=0, what="pass", **options):
    source = CHILD.format(path=sys.path, words=list(words), at=at, what=what)
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, **options
    )


def kill(name):
    return f"os.kill(os.getpid(), signal.{name})"


def log(out):
    entries = json.loads(pathlib.Path(out, "log").read_text())
    return [{k: v for k, v in e.items() if k != "elapsed_time"} for e in entries]


def record(out):
    return json.loads(pathlib.Path(out, "run.json").read_text())


def assert_same(out, expected, last="snapshot_iter_15"):
    """Compares two runs to the bit."""
    assert log(out) == log(expected)
    for name in ("mixup.json", "loss.png", "accuracy.png"):
        assert pathlib.Path(out, name).read_bytes() == (expected / name).read_bytes()
    one, other = (
        read_snapshot(pathlib.Path(folder, last)) for folder in (out, expected)
    )
    assert one.keys() == other.keys()
    for key in one:
        if "elapsed" not in key and not key.endswith("/_log"):
            numpy.testing.assert_array_equal(one[key], other[key], key)


def disturb(monkeypatch, at, what):
    """Does something in this process when the given iteration is done."""
    from chainer.training.updaters import StandardUpdater

    update = StandardUpdater.update

    def counting(self):
        update(self)
        if self.iteration == at:
            what()

    monkeypatch.setattr(StandardUpdater, "update", counting)


class Killed(BaseException):
    pass


def killed():
    raise Killed


def test_killed_before_the_first_snapshot_it_begins_again(undisturbed):
    done = child([*QUICK, "--out", "run"], 3, kill("SIGKILL"))
    assert done.returncode == -signal.SIGKILL
    assert not list(pathlib.Path("run").glob("snapshot*"))
    pathlib.Path("run/tmpsnapshot_iter_5abcdefgh").mkdir()
    assert train.main(["--resume", "run", "--quiet"]) == 0
    assert_same("run", undisturbed)
    assert not list(pathlib.Path("run").glob("tmp*"))
    assert not pathlib.Path("run/.lock").exists()


def test_resume_auto_begins_goes_on_and_ends(undisturbed, capsys, monkeypatch):
    words = [*QUICK, "--out", "run", "--resume", "auto"]
    with monkeypatch.context() as context, pytest.raises(Killed):
        disturb(context, 3, killed)
        train.main(words)
    with monkeypatch.context() as context, pytest.raises(Killed):
        disturb(context, 7, killed)
        train.main(words)
    assert train.main(words) == 0
    assert_same("run", undisturbed)
    capsys.readouterr()
    assert train.main(words) == 0
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(SystemExit):  # never another run
        train.main([*words, "--seed", "1"])
    assert "--seed was 0 and is 1" in capsys.readouterr().err


def test_auto_leaves_a_folder_that_holds_something_else(capsys):
    pathlib.Path("run").mkdir()
    pathlib.Path("run/log").write_text("[]")
    with pytest.raises(SystemExit):
        train.main([*QUICK, "--out", "run", "--resume", "auto"])
    assert "holds another run (log)" in capsys.readouterr().err


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.write_bytes(b"")])
def test_the_newest_good_snapshot_is_taken(undisturbed, capsys, damage):
    assert train.main([*QUICK, "--epoch", "2", "--out", "run"]) == 0
    damage(pathlib.Path("run/snapshot_iter_10"))
    capsys.readouterr()
    assert train.main(["--resume", "run", "--epoch", "3", "--quiet"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: run/snapshot_iter_10 is not a snapshot")
    assert line.endswith("going on from run/snapshot_iter_5")
    assert_same("run", undisturbed)


def test_without_a_good_snapshot_it_says_so_and_touches_nothing(capsys):
    assert train.main([*QUICK, "--epoch", "1", "--out", "run"]) == 0
    cut(pathlib.Path("run/snapshot_iter_5"))
    before = {p: p.read_bytes() for p in pathlib.Path("run").iterdir()}
    for resume in ("run", "auto"):
        with pytest.raises(SystemExit):
            train.main([*QUICK, "--out", "run", "--resume", resume])
        assert "none of the snapshots in run is good" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in pathlib.Path("run").iterdir()} == before


def test_a_second_run_in_one_folder_is_refused(capsys):
    pathlib.Path("run").mkdir()
    lock = RunLock("run")
    with pytest.raises(SystemExit):
        train.main([*QUICK, "--out", "run"])
    assert f"process {os.getpid()} on " in capsys.readouterr().err
    lock.release()
    assert list(pathlib.Path("run").iterdir()) == []


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_saves_in_the_middle_of_an_epoch(undisturbed, name):
    done = child([*QUICK, "--out", "run"], 7, kill(name))
    number = getattr(signal, name)
    assert done.returncode == 128 + number
    (line,) = done.stderr.splitlines()
    assert f"stopped by {name}; the last good snapshot is run/snapshot_iter_7" in line
    assert "go on with chainer-mmix train --resume run" in line
    assert record("run")["status"] == "failed"
    assert record("run")["reason"] == f"stopped by {name}"
    assert train.main(["--resume", "run", "--quiet"]) == 0
    assert_same("run", undisturbed)
    starts = record("run")["starts"]
    assert [(s["from_epoch"], s["to_epoch"]) for s in starts] == [(0, 1.4), (1.4, 3)]


ROOT = pathlib.Path(__file__).parents[2]
STARTS = {
    "script": [ROOT / "train_manifoldmixup.py"],
    "command": [ROOT / "chainer_mmix_command.py", "train"],
    "module": ["-m", "chainer_mmix.cli", "train"],
}


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_to_all_processes_of_a_run(undisturbed, name):
    """As job schedulers and terminals send it."""
    sender = f"import os, signal; os.killpg({{}}, signal.{name})"
    what = f"import subprocess; source = {sender!r}.format(os.getpgrp()); "
    what += "subprocess.run([sys.executable, '-c', source], start_new_session=True)"
    done = child(
        [*QUICK, "--workers", "2", "--out", "run"],
        *(7, what),
        preexec_fn=os.setpgrp,
        timeout=120,
    )
    assert done.returncode == 128 + getattr(signal, name)
    (line,) = done.stderr.splitlines()
    assert f"stopped by {name}; the last good snapshot is run/snapshot_iter_7" in line
    assert train.main(["--resume", "run", "--workers", "0", "--quiet"]) == 0
    assert log("run") == log(undisturbed)


@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize("delay", [0.3, 1, 2])
def test_ctrl_c_while_it_starts_gives_one_line(how, delay):
    process = subprocess.Popen(
        [sys.executable, *STARTS[how], *QUICK, "--epoch", "999"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    (line,) = error.splitlines()
    assert "interrupted" in line or "stopped by SIGINT" in line


def test_ctrl_c_ends_a_comparison_with_one_line(tmp_path):
    (tmp_path / "log").write_text('[{"epoch": 1}]')
    os.mkfifo(tmp_path / "run.json")  # nobody writes, so that it waits
    process = subprocess.Popen(
        [sys.executable, *STARTS["command"][:1], "compare", tmp_path],
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "interrupted\n")


def test_ctrl_c_in_a_callback_of_a_weak_reference_is_not_lost():
    what = "import weakref; r = weakref.ref(o := chainer_mmix.MixupPolicy(), lambda _: "
    what += "os.kill(os.getpid(), 2)); del o"
    done = child([*QUICK, "--out", "run"], 7, what)
    assert done.returncode == 130
    assert pathlib.Path("run/snapshot_iter_7").exists()


def test_a_signal_that_is_ignored_stays_ignored(undisturbed):
    done = child([*QUICK, "--out", "run"], 7, kill("SIGHUP"), preexec_fn=_ignore)
    assert (done.returncode, done.stderr) == (0, "")
    assert_same("run", undisturbed)


def _ignore():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_a_second_signal_ends_it_at_once():
    done = child([*QUICK, "--out", "run"], 7, f"{kill('SIGINT')}; {kill('SIGINT')}")
    assert done.returncode == 130
    assert not pathlib.Path("run/snapshot_iter_7").exists()
    assert record("run")["reason"] == "stopped at once"
    assert train.main(["--resume", "run", "--quiet"]) == 0


@pytest.mark.parametrize("at", [10, 15])
def test_a_signal_stops_an_evaluation_which_is_made_when_resumed(
    undisturbed, monkeypatch, at
):
    from chainer_mmix.training.extensions import Evaluator

    batches = []
    call = Evaluator._call

    def counting(self, *args, **kwargs):
        batches.append(1)
        if len(batches) == 3 + 45 * (at // 5 - 1):  # 45 minibatches an evaluation
            os.kill(os.getpid(), signal.SIGTERM)
        call(self, *args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(Evaluator, "_call", counting)
        assert train.main([*QUICK, "--out", "run"]) == 143
    assert len(log("run")) == at // 5 - 1
    assert train.main(["--resume", "run", "--quiet"]) == 0
    assert_same("run", undisturbed)


def test_a_signal_stops_the_analysis_which_is_made_when_resumed(monkeypatch):
    from chainer_mmix.training.extensions import FgsmEvaluator

    words = [*QUICK, "--epoch", "1", "--analyse"]
    assert train.main([*words, "--out", "expected"]) == 0
    call = FgsmEvaluator.__call__

    def stopped(self, trainer=None):
        os.kill(os.getpid(), signal.SIGTERM)
        return call(self, trainer)

    with monkeypatch.context() as context:
        context.setattr(FgsmEvaluator, "__call__", stopped)
        assert train.main([*words, "--out", "run"]) == 143
    assert train.main(["--resume", "run", "--quiet"]) == 0
    assert log("run") == log("expected")


def test_snapshots_in_an_epoch_and_what_is_kept(undisturbed, monkeypatch):
    words = [*QUICK, "--snapshot-every", "2", "--keep", "4"]
    with monkeypatch.context() as context, pytest.raises(Killed):
        disturb(context, 9, killed)
        train.main([*words, "--out", "run"])
    names = {path.name for path in pathlib.Path("run").glob("*_iter_*")}
    assert {f"snapshot_iter_{n}" for n in (4, 5, 6, 8)} <= names
    assert len(names) == 5  # the best too
    assert train.main(["--resume", "run", "--quiet"]) == 0
    assert record("run")["resumed_from"] == "snapshot_iter_8"
    assert_same("run", undisturbed)
    best = record("run")["best_epoch"]
    assert [p.name for p in pathlib.Path("run").glob("best*")] == [
        f"best_iter_{5 * best}"
    ]


def test_snapshots_by_the_clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    disturb(monkeypatch, 6, lambda: now.__setitem__(0, 61.0))
    words = ["--snapshot-every", "1min", "--keep", "9", "--epoch", "2"]
    assert train.main([*QUICK, *words, "--out", "run"]) == 0
    names = {path.name for path in pathlib.Path("run").glob("snapshot*")}
    assert names == {f"snapshot_iter_{n}" for n in (5, 6, 10)}


def test_early_stopping(capsys):
    words = [*QUICK, "--epoch", "9", "--lr", "1e-12", "--early-stopping", "2"]
    assert train.main([*words, "--out", "run"]) == 0
    accuracies = [entry["validation/main/accuracy"] for entry in log("run")]
    assert len(accuracies) == accuracies.index(max(accuracies)) + 3 < 9
    capsys.readouterr()
    assert train.main(["--resume", "run"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_the_best_by_another_metric():
    words = [*QUICK, "--keep-best", "validation/main/loss", "--lr", "0.3"]
    assert train.main([*words, "--out", "run"]) == 0
    losses = [entry["validation/main/loss"] for entry in log("run")]
    best = 5 * (losses.index(min(losses)) + 1)
    assert [p.name for p in pathlib.Path("run").glob("best*")] == [f"best_iter_{best}"]
    saved = json.loads(str(read_snapshot(f"run/best_iter_{best}")[LOG]))
    assert saved[-1]["validation/main/loss"] == min(losses)


def test_a_metric_that_is_not_there(capsys):
    words = [*QUICK, "--keep-best", "mixup/layer/9", "--out", "run"]
    assert train.main(words) == 1
    assert "there is no mixup/layer/9 in the log" in capsys.readouterr().err


LIMIT = "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"


def test_a_file_that_cannot_grow_ends_it_and_it_goes_on_with_room(undisturbed):
    done = child([*QUICK, "--out", "run"], 7, LIMIT)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert "the training failed" in line and "File too large" in line
    assert "the last good snapshot is run/snapshot_iter_5" in line
    assert "Traceback" not in done.stderr
    assert record("run")["status"] == "failed"
    assert train.main(["--resume", "run", "--quiet"]) == 0
    assert_same("run", undisturbed)


FILL = "os.posix_fallocate(os.open('filler', os.O_CREAT | os.O_WRONLY), 0, {})"


@pytest.mark.parametrize("room", [0, 256])  # KiB: for nothing, for some files
def test_a_full_disk_ends_it_and_it_goes_on_with_room(
    undisturbed, tmp_path, monkeypatch, room
):
    small_disk = runpy.run_path(ROOT / "tests" / "small_disk.py")["small_disk"]
    disk = tmp_path / "disk"
    disk.mkdir()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(small_disk(disk, 4_000_000))
        except OSError as e:
            pytest.skip(str(e))
        monkeypatch.chdir(disk)
        free = "(lambda s: s.f_bavail * s.f_frsize)(os.statvfs('.'))"
        what = FILL.format(f"{free} - {1024 * room}")
        done = child([*QUICK, "--out", "run"], 7, what)
        assert done.returncode == 1, done.stderr
        *warnings, line = done.stderr.splitlines()
        assert all("was not written (No space left on device)" in w for w in warnings)
        assert "the training failed" in line and "No space left on device" in line
        assert "the last good snapshot is run/snapshot_iter_" in line
        pathlib.Path("filler").unlink()
        assert train.main(["--resume", "run", "--quiet"]) == 0
        assert_same("run", undisturbed)
        assert not list(pathlib.Path("run").glob("tmp*"))
        monkeypatch.chdir(tmp_path)


def test_a_folder_that_is_removed_ends_it():
    done = child([*QUICK, "--out", "run"], 7, "shutil.rmtree('run')")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert "No such file or directory" in line and "no snapshot yet" in line
    assert "Traceback" not in done.stderr


def test_a_picture_that_cannot_be_written_is_not_the_end(undisturbed, capsys):
    words = [*QUICK, "--out", "run", "--epoch", "1"]
    assert train.main(words) == 0
    pathlib.Path("run/loss.png").unlink()
    pathlib.Path("run/loss.png").mkdir()
    capsys.readouterr()
    assert train.main(["--resume", "run", "--epoch", "3"]) == 0
    error = capsys.readouterr().err
    assert "warning: run/loss.png was not written (Is a directory)" in error
    assert log("run") == log(undisturbed)


def test_a_pipe_that_is_closed_is_not_the_end(undisturbed):
    words = [word for word in QUICK if word != "--quiet"]
    source = CHILD.format(
        path=sys.path, words=[*words, "--out", "run"], at=0, what="pass"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    process.stdout.close()
    assert (process.wait(), process.stderr.read()) == (0, "")
    process.stderr.close()
    assert_same("run", undisturbed)


def test_a_resumed_run_takes_its_arguments_from_the_record(undisturbed, capsys):
    words = [*QUICK, "--epoch", "2", "--lr", "0.01", "--cutmix-alpha", "1"]
    words += ["--layer-mix", "0", "1", "--per", "sample", "--mixup-prob", "0.8"]
    words += ["--fmix-alpha", "1", "--resizemix-minmax", "0.3", "0.8"]
    words += ["--clean-weight", "0.5", "--remix-kappa", "1"]
    assert train.main([*words, "--epoch", "3", "--out", "expected"]) == 0
    assert train.main([*words, "--out", "run"]) == 0
    assert train.main(["--resume", "run", "--epoch", "3", "--quiet"]) == 0
    assert_same("run", pathlib.Path("expected"))
    arguments = record("run")["arguments"]
    assert (arguments["lr"], arguments["layer_mix"]) == (0.01, [0, 1])
    assert arguments["out"] == "run"
    # A run that was moved goes on where it is.
    pathlib.Path("run").rename("moved")
    assert train.main(["--resume", "moved", "--epoch", "4", "--quiet"]) == 0
    assert not pathlib.Path("run").exists()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train.main(["--resume", "moved", "--mixup", "none"])
    assert "--mixup was manifold and is none" in capsys.readouterr().err


def test_a_record_cannot_name_other_options(capsys):
    assert train.main([*QUICK, "--epoch", "1", "--out", "run"]) == 0
    changed = record("run")
    changed["arguments"] |= {"lr_drop": ["--out=elsewhere", 4], "lr": "much"}
    pathlib.Path("run/run.json").write_text(json.dumps(changed))
    with pytest.raises(SystemExit):
        train.main(["--resume", "run", "--epoch", "2"])
    assert "--lr: must be a finite number > 0, not much" in capsys.readouterr().err
    assert not pathlib.Path("elsewhere").exists()


def test_a_finished_run_is_analysed(capsys):
    words = [*QUICK, "--epoch", "1"]
    assert train.main([*words, "--analyse", "--out", "expected"]) == 0
    assert train.main([*words, "--out", "run"]) == 0
    capsys.readouterr()
    assert train.main(["--resume", "run", "--analyse"]) == 0
    assert "analysed the network of run/snapshot_iter_5" in capsys.readouterr().out
    assert log("run") == log("expected")
    for name in ("reliability.json", "mixup_preview.png"):
        assert pathlib.Path("run", name).exists()
    assert train.main(["--resume", "run", "--analyse"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert train.main(["--resume", "run", "--epoch", "2", "--quiet"]) == 0
    assert "validation/main/ece" in log("run")[0]


def test_what_the_numbers_depend_on_is_compared(capsys):
    assert train.main([*QUICK, "--epoch", "1", "--out", "run"]) == 0
    assert train.main(["--resume", "run", "--epoch", "2", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    changed = record("run")
    changed["starts"][-1]["versions"]["numpy"] = "1.26.4"
    changed["starts"][-1]["device_name"] = "Another"
    pathlib.Path("run/run.json").write_text(json.dumps(changed))
    assert train.main(["--resume", "run", "--epoch", "3", "--quiet"]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert "device_name was Another and is" in first
    assert f"numpy was 1.26.4 and is {numpy.__version__}" in second
