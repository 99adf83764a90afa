import os

import pytest

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
