import os

import pytest

from chainer_mmix.training import check_output


def test_a_new_or_an_empty_folder_is_fine_and_not_touched(tmp_path):
    check_output(tmp_path / "a" / "b")
    check_output(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "notes.txt").touch()
    check_output(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "log", "snapshot_iter_7"])
def test_a_folder_with_another_run(tmp_path, name):
    (tmp_path / name).touch()
    remedy = "resume it" if name.startswith("snapshot") else "remove it"
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


def test_an_empty_name():
    with pytest.raises(ValueError, match="empty name"):
        check_output("")


def test_a_folder_without_permission(tmp_path, monkeypatch):
    # chmod would not stop root, as whom containers run tests.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="cannot be written to"):
        check_output(tmp_path / "new")
