import hashlib
import http.server
import os
import subprocess
import sys
import threading

import pytest

from chainer_mmix.datasets import download
from chainer_mmix.datasets.download import RemoteFile, fetch, unpacking

CONTENT = os.urandom(1000) * 3000  # about 3 MB


class Server(http.server.ThreadingHTTPServer):
    """A server on this machine that can misbehave."""

    content = CONTENT
    ranges = True  # whether it can send a part
    sends: list[int]  # after how many bytes each answer breaks off
    asked: list[str | None]  # the ranges asked for
    delay = None  # waited for in the middle of an answer


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        start = int(asked[len("bytes=") : -1]) if asked and server.ranges else 0
        if start and start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        n = server.sends.pop(0) if server.sends else len(body)
        self.wfile.write(body[: n // 2])
        self.wfile.flush()
        if server.delay is not None:
            server.delay.wait(20)
        self.wfile.write(body[n // 2 : n])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = Server(("127.0.0.1", 0), Handler)
    server.sends, server.asked = [], []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def file(server):
    url = f"http://127.0.0.1:{server.server_address[1]}/some/data.bin"
    return RemoteFile(url, (hashlib.sha256(CONTENT).hexdigest(), "another"))


def files(folder):
    """What is in a folder but for locks."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def test_a_file_is_downloaded_once(server, file, cache, capsys):
    path = fetch(file, "set")
    assert path == cache / "chainer_mmix" / "set" / "data.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(file, "set") == path
    assert server.asked == [None]
    assert f"downloading {file.url}" in capsys.readouterr().err
    assert files(path.parent) == ["data.bin"]


def test_progress_is_shown(server, file, monkeypatch, capsys):
    monkeypatch.setattr("chainer_mmix.progress._PATIENCE", 0)
    fetch(file, "set")
    assert "2 of 3: data.bin, 2 of 2 MiB" in capsys.readouterr().err


def test_a_download_goes_on_where_it_broke_off(server, file, tmp_path, capsys):
    server.sends = [1_000_000, 500_000]
    path = fetch(file, "set", tmp_path)
    assert path == tmp_path / "set" / "data.bin" and path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-", "bytes=1500000-"]
    assert "broke off after 1000000 bytes and goes on" in capsys.readouterr().err


def test_a_later_process_goes_on(server, file, tmp_path):
    server.sends = [1_000_000, 0]
    with pytest.raises(OSError, match="1000000 bytes are kept") as e:
        fetch(file, "set", tmp_path)
    target = tmp_path / "set" / "data.bin"
    for text in (str(target), file.url, "--data-root"):
        assert text in str(e.value)
    assert not target.exists()
    assert fetch(file, "set", tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=1000000-"
    assert files(tmp_path / "set") == ["data.bin"]


def test_a_server_that_cannot_go_on_begins_anew(server, file, tmp_path):
    server.ranges = False
    server.sends = [1_000_000]
    assert fetch(file, "set", tmp_path).read_bytes() == CONTENT
    server.sends = [1_000_000, 1_000_000]
    with pytest.raises(OSError, match="1000000 bytes are kept"):
        fetch(file, "other", tmp_path)


@pytest.mark.parametrize("part", [b"<html>", CONTENT[:-1] + b"x", CONTENT + b"more"])
def test_what_was_left_of_another_file_is_thrown_away(server, file, tmp_path, part):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / ".data.bin.part").write_bytes(part)
    assert fetch(file, "set", tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(part)}-", None]


def test_a_complete_part_is_taken(server, file, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / ".data.bin.part").write_bytes(CONTENT)
    assert fetch(file, "set", tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [b"<html>404</html>", b"", CONTENT[:-1]])
def test_a_wrong_file_is_never_taken(server, file, tmp_path, content):
    server.content = content
    with pytest.raises(ValueError, match="another file than it had") as e:
        fetch(file, "set", tmp_path)
    for text in (hashlib.sha256(content).hexdigest(), file.sha256[0], "data.bin"):
        assert text in str(e.value)
    assert files(tmp_path / "set") == []


def test_a_file_that_is_there_needs_no_network(server, file, tmp_path, cache):
    for where in (tmp_path, tmp_path / "set"):
        where.mkdir(exist_ok=True)
        (where / "data.bin").write_bytes(CONTENT)
        assert fetch(file, "set", tmp_path) == where / "data.bin"
    # What Chainer has downloaded counts, too.
    chainers = cache / "_dl_cache" / hashlib.md5(file.url.encode()).hexdigest()
    chainers.parent.mkdir()
    chainers.write_bytes(CONTENT)
    assert fetch(file, "set") == chainers
    assert server.asked == []


def test_several_checksums_can_be_right(server, file, tmp_path):
    other = file._replace(sha256=file.sha256[::-1])
    assert fetch(other, "set", tmp_path).read_bytes() == CONTENT


def test_a_damaged_file_is_named(server, file, tmp_path):
    (tmp_path / "data.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match="remove it, and it is downloaded anew") as e:
        fetch(file, "set", tmp_path)
    assert str(tmp_path / "data.bin") in str(e.value) and "\n" not in str(e.value)
    assert server.asked == []


def test_without_a_network_the_error_says_where_to_put_the_file(cache):
    file = RemoteFile("http://127.0.0.1:9/data.bin", ("0",))
    with pytest.raises(OSError, match="refused") as e:
        fetch(file, "set")
    for text in (
        file.url,
        str(cache / "chainer_mmix" / "set" / "data.bin"),
        "data_root",
    ):
        assert text in str(e.value)
    assert "\n" not in str(e.value)


def test_a_missing_data_root_is_named(file, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere to look for set in: make it"):
        fetch(file, "set", tmp_path / "nowhere")


_SCRIPT = """
import sys
from chainer_mmix.datasets.download import RemoteFile, fetch
print(fetch(RemoteFile(sys.argv[1], (sys.argv[2],)), "set", sys.argv[3]))
"""


@pytest.mark.slow
def test_two_processes_download_once(server, file, tmp_path):
    server.delay = threading.Event()
    command = [sys.executable, "-c", _SCRIPT, file.url, file.sha256[0], str(tmp_path)]
    processes = [
        subprocess.Popen(command, stdout=-1, stderr=-1, text=True) for _ in range(2)
    ]
    for process in processes:
        first = process.stderr.readline()
        if "waiting" not in first:
            assert "downloading" in first
    server.delay.set()
    outputs = [process.communicate(timeout=60) for process in processes]
    path = tmp_path / "set" / "data.bin"
    assert [out.strip() for out, _ in outputs] == [str(path)] * 2, outputs
    assert path.read_bytes() == CONTENT
    assert server.asked == [None]
    assert files(tmp_path / "set") == ["data.bin"]


def test_a_folder_appears_complete(tmp_path):
    folder = tmp_path / "folder"
    with pytest.raises(ZeroDivisionError), unpacking(folder) as temporary:
        (temporary / "file").write_text("half")
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []
    with unpacking(folder) as temporary:
        (temporary / "file").write_text("whole")
        assert not folder.exists()
    assert (folder / "file").read_text() == "whole"
    # Another process was faster.
    with unpacking(folder) as temporary:
        (temporary / "file").write_text("same")
    assert (folder / "file").read_text() == "whole"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_stalled_connection_is_given_up(server, file, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT", 0.2)
    server.delay = threading.Event()
    server.content = CONTENT[:10]
    with pytest.raises(OSError, match="timed out"):
        fetch(file, "set", tmp_path)
    server.delay.set()
