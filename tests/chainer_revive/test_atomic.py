import pytest

from chainer_revive.atomic import write_atomically


@pytest.mark.parametrize("mode, content", [("w", "naïve\n"), ("wb", b"\0\xff")])
def test_file_appears_complete(tmp_path, mode, content):
    path = tmp_path / "file"
    with write_atomically(path, mode) as file:
        file.write(content)
        file.flush()
        assert not path.exists()
    data = path.read_bytes()
    assert data == (content if mode == "wb" else content.encode())


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), write_atomically(path) as file:
        file.write("new")
        1 / 0  # noqa: B018
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
