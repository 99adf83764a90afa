"""The record of a run: ``run.json`` in its output folder.

It is one flat JSON object, written when the training starts and again when it ends:

=================== ==================================================================
``command``         the command line, one string
``arguments``       every argument after defaults were filled in, an object
``versions``        of python, chainer, chainercv, chainer_mmix, numpy and cupy
                    (``null``: not installed)
``device``          Chainer's specifier, such as ``"@numpy"`` or ``"@cupy:0"``
``device_name``     the name of the GPU or the CPU
``platform``        operating system and machine
``seed``            the seed of everything random
``started``         local time with its offset from UTC, ISO 8601
``resumed_from``    file name of the snapshot that the run went on from, or ``null``
``status``          ``"running"``, ``"finished"`` or ``"failed"``
``reason``          why it failed, one sentence, or ``null``
``duration``        seconds of training, those before a resume included
``epoch``           epochs done
``best_accuracy``   the highest validation accuracy of any epoch, or ``null``
``best_epoch``      the first epoch that reached it, or ``null``
``final_accuracy``  the validation accuracy after the last epoch, or ``null``
=================== ==================================================================
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import chainer
from chainer.backends import cuda

from chainer_mmix.atomic import write_atomically

FILENAME = "run.json"
_ACCURACY = "validation/main/accuracy"


class RunRecord:
    """Writes ``run.json``; the module's documentation lists what is in it.

    Args:
        out (str or path-like): The output folder, which must exist.
        arguments (mapping): All arguments of the run, of JSON types.
        command (str): The command line.
        device (chainer.backend.Device): Where the run computes.
        seed (int): The seed of everything random.
        resumed_from (str): File name of the snapshot that the run goes on from.

    Attributes:
        content (dict): What ``run.json`` holds.
    """

    def __init__(
        self,
        out: str | Path,
        arguments: Mapping[str, Any],
        command: str,
        device: chainer.backend.Device,
        seed: int,
        resumed_from: str | None = None,
    ) -> None:
        self._path = Path(out) / FILENAME
        self.content: dict[str, Any] = {
            "command": command,
            "arguments": dict(arguments),
            "versions": versions(),
            "device": str(device),
            "device_name": device_name(device),
            "platform": platform.platform(),
            "seed": seed,
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "resumed_from": resumed_from,
        }

    def start(self) -> None:
        """Writes the record of a run that has just begun."""
        self._write("running", None, 0.0, [])

    def finish(self, log: Sequence[Mapping[str, float]], duration: float) -> None:
        """Writes the record of a completed run.

        Args:
            log (list of dict): The log of Chainer's ``LogReport``.
            duration (float): Seconds of training.
        """
        self._write("finished", None, duration, log)

    def fail(
        self, reason: str, log: Sequence[Mapping[str, float]], duration: float
    ) -> None:
        """Writes the record of a run that ended early.

        Args:
            reason (str): Why, in one sentence.
            log (list of dict): The log up to there.
            duration (float): Seconds of training.
        """
        self._write("failed", reason, duration, log)

    def _write(self, status, reason, duration, log) -> None:
        self.content |= {"status": status, "reason": reason, "duration": duration}
        self.content |= summary(log)
        with write_atomically(self._path) as file:
            json.dump(self.content, file, indent=2, allow_nan=False)
            file.write("\n")


def summary(log: Sequence[Mapping[str, float]]) -> dict[str, float | int | None]:
    """Returns epoch, best accuracy and its epoch, and final accuracy of a log.

    Best is not final, so both are given; an accuracy that is not a number counts as
    missing (``None``).
    """
    scores = [
        (entry[_ACCURACY], entry["epoch"])
        for entry in log
        if math.isfinite(entry.get(_ACCURACY, math.nan))
    ]
    best, best_epoch = max(scores, key=lambda score: score[0], default=(None, None))
    final = log[-1].get(_ACCURACY, math.nan) if log else math.nan
    return {
        "epoch": log[-1]["epoch"] if log else 0,
        "best_accuracy": best,
        "best_epoch": best_epoch,
        "final_accuracy": final if math.isfinite(final) else None,
    }


def versions() -> dict[str, str | None]:
    """Returns the versions of all that a result depends on, ``None`` where missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("chainer", "chainercv", "chainer_mmix", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    found["cupy"] = cuda.cupy.__version__ if cuda.available else None
    return found


def device_name(device: chainer.backend.Device) -> str:
    """Returns the name of the processor or the GPU behind a device."""
    if device.xp is cuda.cupy and cuda.available:
        properties = cuda.cupy.cuda.runtime.getDeviceProperties(device.device.id)
        return properties["name"].decode()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
