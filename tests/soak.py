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
RUN += ["--epoch", "6", "--snapshot-every", "7"]
COMMAND = [sys.executable, ROOT / "train_manifoldmixup.py"]
SIGNALS = {
    "SIGKILL": -signal.SIGKILL,
    "SIGTERM": 143,
    "SIGHUP": 129,
    "SIGINT": 130,
}


def start(out, **options):
    return subprocess.Popen(
        [*COMMAND, *RUN, "--out", out, "--resume", "auto"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **options,
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
        """Trains one run to its end."""
        out = self._folder / f"run{n}"
        code = None
        while code != 0:
            kind = self._random.choice(
                [*SIGNALS, "full disk", "second run", "damaged snapshot", "nothing"]
            )
            if time.monotonic() > ends:
                kind = "nothing"
            if kind == "damaged snapshot" and not self._damage(out):
                continue
            code = self._disturb(kind, out)
        self._compare(out)

    def _disturb(self, kind, out):
        limit = None
        if kind == "full disk":
            size = self._random.choice([2_000, 50_000, 200_000])
            limit = lambda: resource.setrlimit(  # noqa: E731
                resource.RLIMIT_FSIZE, (size, size)
            )
        process = start(out, preexec_fn=limit)
        second, expected = None, {0}
        if kind in SIGNALS:
            # From its first import to its last epoch.
            time.sleep(self._random.uniform(0, 12))
            process.send_signal(getattr(signal, kind))
            expected |= {SIGNALS[kind], -getattr(signal, kind)}
            sent = time.monotonic()
        elif kind == "full disk":
            expected |= {1, 2}
        elif kind == "second run":
            second = start(out)
            expected |= {2}
        _, error = process.communicate()
        code = process.returncode
        codes = [code]
        if kind in SIGNALS:
            self._longest = max(self._longest, time.monotonic() - sent)
        if second is not None:
            error += second.communicate()[1]
            codes.append(second.returncode)
            # One refuses; or it came when the other had ended.
            if sorted(codes) == [2, 2]:
                self._fail(kind, out, error)
        if not set(codes) <= expected or "Traceback" in error:
            self._fail(kind, out, f"{codes}: {error}")
        self._counts[kind] += 1
        return 0 if 0 in codes else code

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
        self._counts["runs that ended as undisturbed"] += 1

    def _fail(self, kind, out, what):
        print(self.table())
        sys.exit(f"{kind}, {out}: {what}")

    def table(self):
        """Returns the counts as a table of Markdown, and the longest stop."""
        lines = ["| what happened | how often |", "|---|---|"]
        return "\n".join(
            [*lines, *(f"| {k} | {n} |" for k, n in sorted(self._counts.items()))]
        )


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
