"""The verdict on a card's functions, from disk or from a process of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

import chainer_revive
from chainer_revive.atomic import write_atomically
from chainer_revive.cudnn import plans
from chainer_revive.gpu_check import faults

_SECONDS = 300  # in which a check should have ended long ago

COMPILATION = "compilation"  # before the first function

command = [sys.executable, "-m", "chainer_revive.gpu_check"]


class Verdict(NamedTuple):
    """The result of a check.

    Attributes:
        card: See :func:`chainer_revive.gpu_check.card.describe`.
        units: For each function that was checked to its end, what it is in words, and
            the results of its cases (:func:`chainer_revive.gpu_check.run.check`).
        crash: What ended the check early, in a sentence; ``None`` if nothing did.
        during: The function that was being checked then, or ``COMPILATION``; ``None``
            before.
    """

    card: dict[str, Any]
    units: dict[str, dict[str, Any]]
    crash: str | None = None
    during: str | None = None

    def failures(self) -> dict[str, str]:
        """Returns a sentence for each function that is not to be used."""
        return {
            name: _worst(unit)
            for name, unit in self.units.items()
            if not all(map(passes, unit["results"]))
        }


def passes(result: dict[str, Any]) -> bool:
    """Tells whether a deviation is allowed."""
    return result["ours"] is not None and result["ours"] <= result["allowed"]


def _worst(unit: dict[str, Any]) -> str:
    bad = [r for r in unit["results"] if not passes(r)]
    worst = max(bad, key=lambda r: float("inf") if r["ours"] is None else r["ours"])
    where = ", ".join(filter(None, (worst["case"], worst["precision"])))
    found = worst["error"] or (
        f"deviates from float64 by {worst['ours']:.2g} of the largest element, where "
        f"{worst['allowed']:.0e} is allowed"
    )
    return f"{unit['what']} ({where}): {found}"


def get(card: dict[str, Any], device: int, fresh: bool = False) -> Verdict:
    """Returns the verdict on a card, after a check if there is none yet.

    Args:
        card: See :func:`chainer_revive.gpu_check.card.describe`.
        device (int): Its number.
        fresh (bool): Whether to check again, with Chainer's own code beside.
    """
    path = _path(card)
    if not fresh and (known := _load(path, card)):
        return known
    with _one_at_a_time(path):
        if not fresh and (known := _load(path, card)):
            return known
        print(
            "chainer_revive checks once what this GPU computes right ...",
            file=sys.stderr,
        )
        verdict = _check(card, device, beside=fresh)
        # Before all that, the machine is at fault, and may not be next time.
        if verdict.crash is None or (
            verdict.during is not None and not faults.may_pass(verdict.crash)
        ):
            _save(path, verdict)
    return verdict


def _path(card: dict[str, Any]) -> Path:
    key = json.dumps(card, sort_keys=True)
    name = f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    return plans.folder().parent / "gpu-check" / name


def _load(path: Path, card: dict[str, Any]) -> Verdict | None:
    try:
        verdict = Verdict(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # missing or damaged
        return None
    return verdict if verdict.card == card else None


def _save(path: Path, verdict: Verdict) -> None:
    with (
        contextlib.suppress(OSError),  # A home that cannot be written is no error.
        write_atomically(path) as file,
    ):
        json.dump(verdict._asdict(), file, indent=1)


@contextlib.contextmanager
def _one_at_a_time(path: Path):
    """Lets one process check, of those that start together; the others wait."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, Timeout, NotImplementedError):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{path}.lock", timeout=_SECONDS))
        yield


def _check(card: dict[str, Any], device: int, beside: bool) -> Verdict:
    verdict = _run(card, device, beside, ahead=True)
    if verdict.during == COMPILATION and not faults.may_pass(verdict.crash or ""):
        # All at once has gone wrong: which function it is, if it is one at all, shows
        # where they are called one after the other.
        verdict = _run(card, device, beside, ahead=False)
    return verdict


def _run(card: dict[str, Any], device: int, beside: bool, ahead: bool) -> Verdict:
    environ = {**os.environ, "CHAINER_MMIX_CUDA": "0", "CHAINER_MMIX_CUDNN": "0"}
    root = str(Path(chainer_revive.__file__).parent.parent)
    if root not in sysconfig.get_paths().values():  # a checkout
        paths = root, os.environ.get("PYTHONPATH")
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines"
        arguments = [
            *(*command, str(lines), str(device), "01"[beside], "01"[ahead]),
            *card["modules"],
        ]
        crash = None
        try:
            process = subprocess.run(
                arguments,
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
            )
            if process.returncode < 0:
                crash = signal.strsignal(-process.returncode)
            elif process.returncode:
                said = process.stderr.strip().splitlines()
                crash = said[-1] if said else f"exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            crash = f"no end after {_SECONDS} seconds"
        except OSError as e:
            crash = f"Python cannot be started ({e})"
        return _read(card, lines, crash)


def _read(card: dict[str, Any], path: Path, crash: str | None) -> Verdict:
    units, during, done = {}, None, False
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                what = json.loads(line)
            except ValueError:  # cut off
                break
            if "begin" in what:
                during = what["begin"]
            elif "unit" in what:
                units[what.pop("unit")] = what
            done = "done" in what
    if done:
        return Verdict(card, units)
    return Verdict(card, units, crash or "the check ended early", during)
