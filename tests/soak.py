"""Disturbs training runs at random for a while; what they end with must not change.

    python tests/soak.py [--minutes 60] [--seed 0]

Each run trains a small network for some epochs. It is killed, stopped by signals, run
out of space, its snapshots are damaged, and a second run is started in its folder. It
is resumed until it is done. Then its log, its counts of mixing and its weights are
compared with those of a run that nothing happened to. The table at the end is in
docs/reliability.md.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from chainer_mmix.training import read_snapshot  # noqa: E402

RUN = ["--model", "cnn", "--train-size", "300", "--batchsize", "16", "--augment"]
RUN += ["--epoch", "20", "--snapshot-every", "7"]
COMMAND = [sys.executable, ROOT / "train_manifoldmixup.py"]
FULL, DAMAGE, SECOND = "no room for a file", "damaged snapshot", "second run"
SAME = "runs that ended as the undisturbed one"
SIGNALS = {
    "SIGKILL": -signal.SIGKILL,
    "SIGTERM": 143,
    "SIGHUP": 129,
    "SIGINT": 130,
}


def start(out, size=None):
    """Starts the run, which may write files of ``size`` bytes at most."""

    def prepare():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup would ignore
        if size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return subprocess.Popen(
        [*COMMAND, *RUN, "--out", out, "--resume", "auto"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


class Soak:
    """Disturbs runs and counts what comes of it."""

    def __init__(self, folder, seed):
        self._random = random.Random(seed)
        self._folder = folder
        self._counts = collections.Counter()
        self._longest = 0.0
        self._expected = folder / "undisturbed"
        process = start(self._expected)
        _, error = process.communicate()
        assert process.returncode == 0, error

    def one_run(self, n, ends):
        """Trains one run to its end, ten times disturbed."""
        out = self._folder / f"run{n}"
        for _ in range(10):
            kind = self._random.choice([*SIGNALS, FULL, SECOND, DAMAGE])
            if time.monotonic() > ends or self._disturb(kind, out):
                break
        self._finish(out)
        self._compare(out)

    def _disturb(self, kind, out):
        """Starts the run, disturbs it once and tells whether it ended before."""
        if kind == DAMAGE and not self._damage(out):
            return False
        name = kind if kind in SIGNALS else "SIGKILL"
        sizes = [2_000, 50_000, 200_000]
        size = self._random.choice(sizes) if kind == FULL else None
        processes = [start(out, size)]
        if kind == SECOND:
            processes.append(start(out))
        # From its first import to its last epoch.
        with contextlib.suppress(subprocess.TimeoutExpired):
            processes[0].wait(self._random.uniform(0, 15))
        sent = time.monotonic()
        for process in processes:
            process.send_signal(getattr(signal, name))
        errors = [process.communicate()[1] for process in processes]
        codes = [process.returncode for process in processes]
        if kind in SIGNALS:
            self._longest = max(self._longest, time.monotonic() - sent)
        expected = {0, SIGNALS[name], -getattr(signal, name)}
        expected |= {FULL: {1, 2}, SECOND: {2}}.get(kind, set())
        # Of two runs one is refused at most.
        if not set(codes) <= expected or codes == [2, 2] or "Traceback" in str(errors):
            self._fail(kind, out, f"{codes}: {errors}")
        self._counts[kind] += 1
        self._counts["of them, refused"] += codes.count(2) if kind == SECOND else 0
        return 0 in codes

    def _finish(self, out):
        process = start(out)
        _, error = process.communicate()
        if process.returncode != 0 or "Traceback" in error:
            self._fail("end", out, f"{process.returncode}: {error}")

    def _damage(self, out):
        snapshots = sorted(out.glob("snapshot_iter_*"), key=lambda p: p.stat().st_mtime)
        if len(snapshots) < 2:
            return False
        content = bytearray(snapshots[-1].read_bytes())
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
            if key.startswith("updater/") and (
                key not in one or one[key].tobytes() != other[key].tobytes()
            ):
                self._fail("end", out, f"{key} differs")
        left = [p.name for p in out.iterdir() if p.name.startswith(("tmp", "."))]
        if left:
            self._fail("end", out, f"{left} are left")
        self._counts[SAME] += 1

    def _fail(self, kind, out, what):
        print(self.table())
        sys.exit(f"{kind}, {out}: {what}")

    def table(self):
        """Returns the counts as a table of Markdown."""
        rows = [*SIGNALS, FULL, DAMAGE, SECOND, "of them, refused", SAME]
        lines = [f"| {row} | {self._counts[row]} |" for row in rows]
        lines.append(
            f"| longest time from a signal to the end | {self._longest:.1f} s |"
        )
        return "\n".join(["| what happened | how often |", "|---|---|", *lines])


def newest(out):
    return max(out.glob("snapshot_iter_*"), key=lambda p: int(p.name.split("_")[-1]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    ends = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(pathlib.Path(folder), args.seed)
        n = 0
        while time.monotonic() < ends:
            soak.one_run(n, ends)
            n += 1
    print(soak.table(), flush=True)


if __name__ == "__main__":
    main()
