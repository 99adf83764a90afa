"""Disturbs training runs at random for a while; what they end with must not change.

    python tests/soak.py [--minutes 60] [--seed 0]

Each run trains a small network for some epochs, with 0, 1 or 2 worker processes,
another number at each start. It is killed, stopped by signals, run out of space, its
snapshots are damaged, and a second run is started in its folder. It is resumed until it
is done. Then its log, its counts of mixing and its weights are compared with those of a
run that nothing happened to. As root, the runs are on a small disk of their own, a
tmpfs, which is really filled. The table at the end is in docs/reliability.md.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from small_disk import fill, small_disk  # noqa: E402

from chainer_mmix.training import read_snapshot  # noqa: E402

RUN = ["--model", "cnn", "--train-size", "300", "--batchsize", "16", "--augment"]
RUN += ["--epoch", "20", "--snapshot-every", "7"]
COMMAND = [sys.executable, ROOT / "train_manifoldmixup.py"]
LIMIT, FULL = "file that may not grow", "full disk"
DAMAGE, SECOND = "damaged snapshot", "second run"
SIGNALS = {
    "SIGKILL": -signal.SIGKILL,
    "SIGTERM": 143,
    "SIGHUP": 129,
    "SIGINT": 130,
}
WORKERS = (0, 1, 2)
DISK = 24 * 2**20
# Seconds: what a run may take to end by itself, and its workers after it.
PATIENCE = 300
ORPHAN = 60


def start(out, workers=0, size=None):
    """Starts the run, which may write files of ``size`` bytes at most."""

    def prepare():
        # Not a session: each has a share of the processor, whatever its niceness.
        os.setpgid(0, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup would ignore
        if size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    words = [*RUN, "--workers", str(workers), "--out", out, "--resume", "auto"]
    return subprocess.Popen(
        [*COMMAND, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


class Soak:
    """Disturbs runs and counts what comes of it."""

    def __init__(self, folder, seed, kinds):
        self._random = random.Random(seed)
        self._folder = folder
        self._kinds = kinds
        self._counts = collections.Counter()
        self._longest = 0.0
        self._expected = folder / "undisturbed"
        began = time.monotonic()
        process = start(self._expected)
        _, error = process.communicate()
        assert process.returncode == 0, error
        self._duration = time.monotonic() - began

    def one_run(self, n, ends):
        """Trains one run to its end, ten times disturbed."""
        out = self._folder / f"run{n}"
        for _ in range(10):
            kind = self._random.choice(self._kinds)
            if time.monotonic() > ends or self._disturb(kind, out):
                break
        self._finish(out)
        self._compare(out)
        shutil.rmtree(out)

    def _start(self, out, size=None):
        workers = self._random.choice(WORKERS)
        self._counts[_starts(workers)] += 1
        return start(out, workers, size)

    def _disturb(self, kind, out):
        """Starts the run, disturbs it once and tells whether it ended before.

        Half the time, the newest snapshot is damaged first, if there is an older one.
        """
        if self._random.random() < 0.5 and self._damage(out):
            self._counts[DAMAGE] += 1
        self._counts[kind] += 1
        size = None
        if kind == LIMIT:
            size = self._random.choice([2_000, 50_000, 200_000])
        process = self._start(out, size)
        if kind == SECOND:
            return self._second(out, process)
        # From its first import to its last epoch.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self._random.uniform(0, self._duration))
        if kind == FULL:
            room = self._random.choice([0, 20_000, 200_000])
            with (
                fill(self._folder, room),
                contextlib.suppress(subprocess.TimeoutExpired),
            ):
                process.wait(10)  # until it wants to write
        name = kind if kind in SIGNALS else "SIGKILL"
        number = getattr(signal, name)
        sent = time.monotonic()
        if process.poll() is None:
            # Ctrl-C reaches the workers too; a scheduler may or may not do so.
            to_all = name != "SIGKILL" and self._random.random() < 0.5
            (os.killpg if to_all else os.kill)(process.pid, number)
        code, error = self._end(kind, out, process)
        if kind in SIGNALS:
            self._longest = max(self._longest, time.monotonic() - sent)
        expected = {0, SIGNALS[name], -number}
        expected |= {1, 2} if kind in (LIMIT, FULL) else set()
        if code not in expected:
            self._fail(kind, out, f"{code}: {error}")
        return code == 0

    def _second(self, out, first):
        """Starts the run again while it is at work, or at the same moment."""
        if self._random.random() < 0.5:
            while first.poll() is None and not (out / ".lock").exists():
                time.sleep(0.05)
        processes = [first, self._start(out)]
        ends = time.monotonic() + PATIENCE
        while all(process.poll() is None for process in processes):
            if time.monotonic() > ends:
                self._fail(SECOND, out, "neither was refused or came to its end")
            time.sleep(0.05)
        for process in processes:
            process.kill()
        ended = [self._end(SECOND, out, process) for process in processes]
        codes = [code for code, _ in ended]
        refused = [error for code, error in ended if code == 2]
        # Either may be the one that is refused, but one is, unless the other is done.
        if (
            not set(codes) <= {0, 2, -signal.SIGKILL}
            or len(refused) > 1
            or not (refused or 0 in codes)
            or any("another run" not in error for error in refused)
        ):
            self._fail(SECOND, out, str(ended))
        self._counts["second run, refused"] += len(refused)
        return 0 in codes

    def _end(self, kind, out, process):
        """Waits for the end of a run and of its workers."""
        try:
            _, error = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            self._fail(kind, out, f"no end after {PATIENCE} s")
        if "Traceback" in error:
            self._fail(kind, out, error)
        ends = time.monotonic() + ORPHAN
        while True:
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return process.returncode, error
            if time.monotonic() > ends:
                os.killpg(process.pid, signal.SIGKILL)
                self._fail(kind, out, f"workers are left {ORPHAN} s after their run")
            time.sleep(0.05)

    def _finish(self, out):
        code, error = self._end("end", out, self._start(out))
        if code != 0:
            self._fail("end", out, f"{code}: {error}")

    def _damage(self, out):
        snapshots = sorted(out.glob("snapshot_iter_*"), key=lambda p: p.stat().st_mtime)
        if len(snapshots) < 2:
            return False
        content = bytearray(snapshots[-1].read_bytes())
        if not content:  # emptied before, and nothing has come after it yet
            return False
        how = self._random.choice(["cut", "flip", "empty"])
        if how == "cut":
            del content[self._random.randrange(len(content)) :]
        elif how == "flip":
            content[self._random.randrange(len(content))] ^= (
                1 << self._random.randrange(8)
            )
        else:
            content.clear()
        snapshots[-1].write_bytes(content)
        return True

    def _compare(self, out):
        for name in ("log", "mixup.json"):
            one, other = (
                json.loads((f / name).read_text()) for f in (out, self._expected)
            )
            for entry in (*one, *other) if name == "log" else ():
                del entry["elapsed_time"]
            if one != other:
                self._fail("end", out, f"{name} differs")
        one, other = (read_snapshot(newest(f)) for f in (out, self._expected))
        for key in one.keys() | other.keys():
            if not key.startswith("updater/"):
                continue
            saved = [part.get(key, np.array(None)) for part in (one, other)]
            if key.endswith("/example_draws"):
                # How many examples; seeds that nothing was drawn with are chosen only
                # where workers may need them.
                saved = [part[:1] for part in saved]
            if saved[0].tobytes() != saved[1].tobytes():
                self._fail("end", out, f"{key} differs")
        left = [p.name for p in out.iterdir() if p.name.startswith(("tmp", "."))]
        if left:
            self._fail("end", out, f"{left} are left")
        self._counts["runs that ended like the undisturbed one"] += 1

    def _fail(self, kind, out, what):
        print(self.table())
        sys.exit(f"{kind}, {out}: {what}")

    def table(self):
        """Returns the counts as a table of Markdown."""
        rows = [*self._kinds, "second run, refused", DAMAGE]
        rows += [_starts(workers) for workers in WORKERS]
        rows.append("runs that ended like the undisturbed one")
        lines = [f"| {row} | {self._counts[row]} |" for row in rows]
        lines.append(
            f"| longest time from a signal to the end | {self._longest:.1f} s |"
        )
        return "\n".join(["| what happened | how often |", "|---|---|", *lines])


def _starts(workers):
    return f"starts with {workers} worker" + "s" * (workers != 1)


def newest(out):
    return max(out.glob("snapshot_iter_*"), key=lambda p: int(p.name.split("_")[-1]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    ends = time.monotonic() + 60 * args.minutes
    kinds = [*SIGNALS, LIMIT, FULL, SECOND]
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            stack.enter_context(small_disk(folder, DISK))
        except OSError as e:
            print(f"no disk of its own ({e}): {FULL} is left out", file=sys.stderr)
            kinds.remove(FULL)
        soak = Soak(folder, args.seed, kinds)
        n = 0
        while time.monotonic() < ends:
            soak.one_run(n, ends)
            n += 1
        print(soak.table(), flush=True)


if __name__ == "__main__":
    main()
