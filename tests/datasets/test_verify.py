import errno
import os
import threading

import pytest
from PIL import Image

from chainer_mmix.datasets import UnreadablePictureError, verify
from chainer_mmix.datasets.verify import find_unreadable


@pytest.fixture
def paths(tmp_path, draw_picture):
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path in paths:
        draw_picture(path)
    paths[1].write_bytes(b"")
    paths[4].write_bytes(paths[4].read_bytes()[:-30])
    return list(map(str, paths))


@pytest.fixture
def read(monkeypatch):
    """The paths that have been read."""
    calls = []
    original = verify.read_picture

    def read_picture(path):
        calls.append(path)
        return original(path)

    monkeypatch.setattr(verify, "read_picture", read_picture)
    return calls


def test_all_unreadable_files_are_found(paths):
    bad = find_unreadable(paths)
    assert list(bad) == [paths[1], paths[4]]
    assert "of no known format" in bad[paths[1]] and "truncated" in bad[paths[4]]
    assert find_unreadable([]) == {}


def test_what_was_checked_is_remembered(paths, read, tmp_path):
    memory = tmp_path / "cache" / "memory.json"
    bad = find_unreadable(paths, memory)
    assert sorted(read) == paths
    read.clear()
    assert find_unreadable(paths, memory) == bad and read == []
    # Another size, another time, and a new file.
    os.utime(paths[0], ns=(0, 0))
    with open(paths[2], "ab") as file:
        file.write(b"\0")
    new = str(tmp_path / "new.png")
    Image.new("RGB", (2, 2)).save(new)
    assert find_unreadable([*paths, new], memory) == bad
    assert sorted(read) == [paths[0], paths[2], new]
    # A file that has been repaired.
    read.clear()
    Image.new("RGB", (2, 2)).save(paths[1])
    assert list(find_unreadable(paths, memory)) == [paths[4]] and read == [paths[1]]


def test_another_pillow_checks_anew(paths, read, tmp_path, monkeypatch):
    find_unreadable(paths, tmp_path / "memory.json")
    read.clear()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32)
    assert len(find_unreadable(paths, tmp_path / "memory.json")) == len(read) == 6


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"readers": [], "files": 3}', "\0", '{"files": {']
)
def test_a_damaged_memory_does_no_harm(paths, tmp_path, content):
    (tmp_path / "memory.json").write_text(content)
    assert len(find_unreadable(paths, tmp_path / "memory.json")) == 2


def test_a_memory_that_cannot_be_written_is_named(paths, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="memory.json cannot be written") as record:
        bad = find_unreadable(paths, tmp_path / "file" / "memory.json")
    assert len(bad) == 2 and "CHAINER_DATASET_ROOT" in str(record[0].message)


def test_a_fault_that_passes_is_not_remembered(paths, tmp_path, monkeypatch):
    def fail(path):
        raise UnreadablePictureError(path, "broken disk") from OSError(errno.EIO, "x")

    with monkeypatch.context() as patch:
        patch.setattr(verify, "read_picture", fail)
        assert len(find_unreadable(paths, tmp_path / "memory.json")) == 6
    assert len(find_unreadable(paths, tmp_path / "memory.json")) == 2


def test_a_file_that_comes_back_is_read(paths, tmp_path):
    os.rename(paths[0], paths[0] + "x")
    assert paths[0] in find_unreadable(paths, tmp_path / "memory.json")
    os.rename(paths[0] + "x", paths[0])
    assert len(find_unreadable(paths, tmp_path / "memory.json")) == 2


def test_pictures_are_read_by_several_threads(paths, monkeypatch):
    barrier = threading.Barrier(2, timeout=20)
    monkeypatch.setattr(verify.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(verify, "read_picture", lambda path: barrier.wait())
    assert find_unreadable(paths) == {}


def test_an_interrupted_check_goes_on(paths, read, tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "_CHUNK", 2)
    original = verify.read_picture

    def interrupt(path):
        if path == paths[3]:
            raise KeyboardInterrupt
        return original(path)

    with monkeypatch.context() as patch:
        patch.setattr(verify, "read_picture", interrupt)
        with pytest.raises(KeyboardInterrupt):
            find_unreadable(paths, tmp_path / "memory.json")
    read.clear()
    assert len(find_unreadable(paths, tmp_path / "memory.json")) == 2
    assert sorted(read) == paths[3:]
