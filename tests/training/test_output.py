import os
import threading

import chainer
import pytest

from chainer_mmix import training
from chainer_mmix.training import check_output, remove_leftovers


def test_a_new_or_an_empty_folder_is_fine_and_not_touched(tmp_path):
    check_output(tmp_path / "a" / "b")
    check_output(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "notes.txt").touch()
    check_output(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "log", "snapshot_iter_7"])
def test_a_folder_with_another_run(tmp_path, name):
    (tmp_path / name).touch()
    remedy = "remove it" if name == "log" else "resume it"
    with pytest.raises(
        ValueError, match=f"holds another run.*{name}.*{remedy}.*another folder"
    ):
        check_output(tmp_path)


def test_a_folder_with_the_run_to_resume(tmp_path):
    (tmp_path / "snapshot_iter_7").touch()
    check_output(tmp_path, tmp_path / "snapshot_iter_7")
    other = tmp_path / "other"
    other.mkdir()
    (other / "snapshot_iter_7").touch()
    with pytest.raises(ValueError, match="holds another run"):
        check_output(tmp_path, other / "snapshot_iter_7")


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_in_the_way(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        check_output(tmp_path / name)


def test_a_run_that_failed_in_its_first_epoch_may_be_replaced(tmp_path):
    (tmp_path / "run.json").write_text('{"status": "failed"}')
    check_output(tmp_path)
    (tmp_path / "log").touch()
    with pytest.raises(ValueError, match="holds another run"):
        check_output(tmp_path)


def test_a_run_without_a_snapshot_may_begin_again(tmp_path):
    (tmp_path / "run.json").write_text('{"status": "running"}')
    (tmp_path / "log").touch()
    check_output(tmp_path, again=True)
    (tmp_path / "snapshot_iter_7").touch()
    with pytest.raises(ValueError, match="holds another run"):
        check_output(tmp_path, again=True)
    (tmp_path / "snapshot_iter_7").unlink()
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match="holds another run"):  # not one of ours
        check_output(tmp_path, again=True)


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    kept = ["log", "snapshot_iter_7", "best_iter_7", "notes.txt", "logs", ".git"]
    kept += ["tmpsnapshot", ".hidden.tmp", "logarithms"]
    for name in kept:
        (tmp_path / name).touch()
    for name in (
        "tmpsnapshot_iter_12_a1b2c3d",
        "tmpbest_iter_3abcdefgh",
        "logq_w2e3r4",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").touch()
    for name in (".run.json.123.tmp", ".lock.123"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_an_empty_name():
    with pytest.raises(ValueError, match="empty name"):
        check_output("")


def test_a_folder_without_permission(tmp_path, monkeypatch):
    # chmod would not stop root, as whom containers run tests.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="cannot be written to"):
        check_output(tmp_path / "new")


def _files(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def _record(out, **options):
    device = chainer.get_device("@numpy")
    return training.RunRecord(out, {}, "mine.py", device, 0, **options)


def test_a_second_run_of_a_program_takes_nothing_from_the_first(tmp_path, make_trainer):
    best = "validation/main/loss", True
    trainer = make_trainer(tmp_path, keep_best=best)
    record = _record(tmp_path)
    record.start()
    training.run(trainer, record)
    before = _files(tmp_path)
    assert training.find_best_snapshot(tmp_path) and ".lock" not in before

    other = make_trainer(tmp_path, seed=1, epoch=3, keep_best=best)
    remedy = "holds another run .*name another folder.*resume its run, by load_snapshot"
    with pytest.raises(ValueError, match=remedy):
        _record(tmp_path).start()
    with pytest.raises(ValueError, match=remedy):
        training.run(other, None)
    assert _files(tmp_path) == before


def test_a_program_resumes_its_run_and_no_other(tmp_path, make_trainer, log_of):
    one, two = tmp_path / "one", tmp_path / "two"
    training.run(make_trainer(one, epoch=1), None)
    training.run(make_trainer(two, epoch=1, seed=1), None)
    found = training.find_snapshot(one)
    resumed = make_trainer(two, epoch=2)
    training.load_snapshot(found, resumed)
    with pytest.raises(ValueError, match="holds another run than the one"):
        training.run(resumed, None)

    resumed = make_trainer(one, epoch=2)
    training.load_snapshot(found, resumed)
    record = _record(one, resumed_from=found, epoch=1)
    record.start(resumed.get_extension("LogReport").log)
    training.run(resumed, record)
    whole = make_trainer(tmp_path / "whole", epoch=2)
    training.run(whole, None)
    assert log_of(resumed) == log_of(whole)


def test_two_programs_do_not_write_into_a_folder_at_once(tmp_path, make_trainer):
    (tmp_path / ".lock").write_text('{"host": "another", "pid": 1}')
    with pytest.raises(training.LockedError, match="another run is writing"):
        training.run(make_trainer(tmp_path), None)
    (tmp_path / ".lock").unlink()
    lock = training.RunLock(tmp_path)  # of the program itself
    training.run(make_trainer(tmp_path), None)
    assert (tmp_path / ".lock").exists()
    lock.release()


@pytest.mark.parametrize("has_lock", [False, True])
def test_a_run_in_another_thread_is_a_second_one_too(tmp_path, make_trainer, has_lock):
    lock = training.RunLock(tmp_path) if has_lock else None  # of the program itself
    first, second = make_trainer(tmp_path), make_trainer(tmp_path)
    refusals = []

    def run_second():
        with pytest.raises(training.LockedError) as error:
            training.run(second, None)
        refusals.append(str(error.value))

    def in_another_thread(trainer):
        thread = threading.Thread(target=run_second)
        thread.start()
        thread.join()

    first.extend(in_another_thread, trigger=(1, "iteration"))
    training.run(first, None)
    assert len(refusals) == first.updater.iteration
    assert second.updater.iteration == 0
    if lock is not None:
        lock.release()
    assert not (tmp_path / ".lock").exists()
