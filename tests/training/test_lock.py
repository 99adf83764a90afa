import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from chainer_mmix.training.lock import LockedError, RunLock

HOLD = """
import sys, time
sys.path[:0] = {path}
from chainer_mmix.training.lock import RunLock
lock = RunLock({out!r})
print("locked", flush=True)
{then}
"""


def hold(out, then="time.sleep(60)"):
    """Starts a process that locks a folder."""
    source = HOLD.format(path=sys.path, out=str(out), then=then)
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    return process


def test_another_process_is_kept_out_until_this_one_ends_in_whatever_way(tmp_path):
    process = hold(tmp_path)
    try:
        message = rf"process {process.pid} on {socket.gethostname()}"
        with pytest.raises(LockedError, match=message):
            RunLock(tmp_path)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / ".lock").exists()
    lock = RunLock(tmp_path)
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_forked_workers_that_outlive_the_run_do_not_hold_it(tmp_path):
    process = hold(
        tmp_path,
        "import os\npid = os.fork()\nif pid: print(pid, flush=True)\ntime.sleep(60)",
    )
    worker = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        RunLock(tmp_path).release()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_twice_in_one_process(tmp_path):
    lock = RunLock(tmp_path)
    with pytest.raises(LockedError, match=f"process {os.getpid()}"):
        RunLock(tmp_path)
    lock.release()
    lock.release()
    RunLock(tmp_path).release()


@pytest.mark.parametrize("age, is_alive", [(10, True), (300, False)])
def test_a_run_on_another_machine_lives_while_it_touches_its_lock(
    tmp_path, age, is_alive
):
    path = tmp_path / ".lock"
    path.write_text('{"host": "elsewhere", "pid": 1}')
    os.utime(path, (time.time() - age,) * 2)
    if is_alive:
        with pytest.raises(LockedError, match="process 1 on elsewhere"):
            RunLock(tmp_path)
    else:
        RunLock(tmp_path).release()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"] * is_alive


@pytest.mark.parametrize("content", ["", "x", "[]", '{"host": 1}', "\0" * 2000])
def test_a_lock_that_was_not_written_to_its_end(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    RunLock(tmp_path).release()


def test_of_many_that_start_at_once_one_wins(tmp_path):
    (tmp_path / ".lock").write_text(
        json.dumps({"host": socket.gethostname(), "pid": 1})
    )
    source = HOLD.format(path=sys.path, out=str(tmp_path), then="time.sleep(3)")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", source],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ended = [process.communicate() for process in started]
    assert sorted(process.returncode for process in started) == [0, 1, 1, 1]
    assert sum("LockedError" in error for _, error in ended) == 3
