"""``run.json``: the record of a run, in its output folder.

It is one JSON object, written when the training starts and again when it ends:

=================== ==================================================================
``command``         the command line, one string
``arguments``       every argument, with defaults filled in, an object
``setting``         the setting by which runs are compared, a :class:`Setting`
``versions``        of python, chainer, chainercv, chainer_mmix, numpy and cupy
                    (``null``: not installed)
``revive``          the code that Chainer ran through (:func:`chainer_revive.state`):
                    its own or faster code, versions and threads of Numba and BLAS
``device``          Chainer's specifier, such as ``"@numpy"`` or ``"@cupy:0"``
``device_name``     the name of the GPU or the CPU
``ranks``           the number of processes that train together
``platform``        operating system and machine
``started``         local time with its offset from UTC, ISO 8601
``resumed_from``    file name of the snapshot from which the run resumed, or ``null``
``starts``          each start that led to the present network, including the last:
                    objects with all of the above and the epochs it trained,
                    ``from_epoch`` (exclusive) to ``to_epoch`` (inclusive; ``null``
                    until the first is done)
``seed``            the seed of everything random
``data``            the data: the numbers of images, ``n_train`` and ``n_held_out``;
                    ``held_out``, ``"validation"`` or ``"test"``, the set behind
                    ``validation`` in the log; ``class_names``, a list;
                    ``input_shape`` and ``input_range``, the shape of an image and the
                    least and the largest value; with ``--standardise``,
                    ``standardise``, the constants ``mean`` and ``std`` that the
                    network applies
``status``          ``"running"``, ``"finished"`` or ``"failed"``
``reason``          why it failed, one sentence, or ``null``
``duration``        seconds of training, those before a resume included
``epoch``           epochs done
``best_accuracy``   the highest validation accuracy of any epoch, or ``null``
``best_epoch``      the first epoch that reached it, or ``null``
``final_accuracy``  the validation accuracy after the last epoch, or ``null``
``test_accuracy``   the accuracy then on a test set that is not ``held_out``, or
                    ``null``
=================== ==================================================================

The values outside ``starts`` are those of the last start.
"""

from __future__ import annotations

import dataclasses
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

import chainer_revive
from chainer_mmix.runs.files import RunError, read_json, write_json

FILENAME = "run.json"
_ACCURACY = "validation/main/accuracy"
_TEST_ACCURACY = "test/main/accuracy"


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a run trains. Runs of the same setting differ only in seed and machine.

    Attributes:
        values (dict): The arguments that define it, of JSON types.
        epoch (int or None): The number of epochs to train.
        title (str): A title of a few words.
        mixing (tuple of str): The names of the values that say how it mixes.
        mixes (bool or None): Whether it mixes; ``None`` if that is not known.
        main (tuple of str): The names of the values that are always shown.
        follows (dict): By the name of a value, the name of another one from which it
            follows, so that it need not be shown.
    """

    values: Mapping[str, Any]
    epoch: int | None = None
    title: str = ""
    mixing: Sequence[str] = ()
    mixes: bool | None = None
    main: Sequence[str] = ()
    follows: Mapping[str, str] = dataclasses.field(default_factory=dict)


class RunRecord:
    """Writes ``run.json``; the module's documentation lists what is in it.

    Args:
        out (str or path-like): The output folder.
        arguments (mapping): All arguments of the run, of JSON types.
        command (str): The command line.
        device (chainer.backend.Device): Where the run computes.
        seed (int): The seed of everything random.
        resumed_from (str or path-like): The snapshot from which the run resumes. The
            record beside it, if there is one, has the earlier starts. The default is
            ``None``.
        epoch (float): The epochs that are done. The default is 0.
        setting (Setting): What is trained; ``None``, the default, if it is not known.
        data (mapping): The data it is trained on, of JSON types.
        ranks (int): The number of processes that train it. The default is 1.

    Attributes:
        content (dict): The content of ``run.json``.
        differences (list of str): The changes since the last start that may affect the
            numbers.

    Raises:
        RunError: If the record beside the snapshot is damaged.
        TypeError: If an argument, the data or the seed is not of JSON types.
    """

    def __init__(
        self,
        out: str | Path,
        arguments: Mapping[str, Any],
        command: str,
        device: chainer.backend.Device,
        seed: int,
        resumed_from: str | Path | None = None,
        epoch: float = 0,
        setting: Setting | None = None,
        data: Mapping[str, Any] | None = None,
        ranks: int = 1,
    ) -> None:
        for name, value in [*arguments.items(), *(data or {}).items(), ("seed", seed)]:
            _check_json(name, value)
        self._path = Path(out) / FILENAME
        start: dict[str, Any] = {
            "command": command,
            "arguments": dict(arguments),
            "setting": None if setting is None else dataclasses.asdict(setting),
            "versions": versions(),
            "revive": chainer_revive.state(),
            "device": str(device),
            "device_name": device_name(device),
            "ranks": ranks,
            "platform": platform.platform(),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "resumed_from": None if resumed_from is None else Path(resumed_from).name,
        }
        before = []
        if resumed_from is not None:
            before = _starts_until(read_record(Path(resumed_from).parent), epoch)
        self.differences = _differences(before[-1], start) if before else []
        self._start = {**start, "from_epoch": epoch, "to_epoch": None}
        self.content = {**start, "starts": [*before, self._start], "seed": seed}
        self.content["data"] = dict(data or {})

    def start(self, log: Sequence[Mapping[str, float]] = ()) -> None:
        """Writes the record of a run that has just begun, and makes its folder.

        Args:
            log (list of dict): What there is of the log, if the run was resumed.

        Raises:
            RunError: If the folder holds another run, and this one is not resumed.
        """
        if self.content["resumed_from"] is None and not log:
            check_vacant(self._path.parent)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        duration = log[-1].get("elapsed_time", 0.0) if log else 0.0
        self._write("running", None, duration, log)

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

    def _write(
        self,
        status: str,
        reason: str | None,
        duration: float,
        log: Sequence[Mapping[str, float]],
    ) -> None:
        self.content |= {"status": status, "reason": reason, "duration": duration}
        self.content |= summary(log)
        if self.content["epoch"] > self._start["from_epoch"]:
            self._start["to_epoch"] = self.content["epoch"]
        write_json(self._path, self.content)


def check_vacant(out: Path) -> None:
    """Checks that a folder holds no log and no snapshot, which a new run would replace.

    A new run asks this as it begins. Before that, when it is not known yet whether a
    run is new, :func:`chainer_mmix.training.check_output` looks at the folder.

    Args:
        out (pathlib.Path): The folder, which need not exist.

    Raises:
        RunError: If it does.
    """
    files = [path.name for path in sorted(out.glob("snapshot_iter_*"))]
    if (out / "log").exists():
        files.insert(0, "log")
    if files:
        raise RunError(
            f"the output folder {out} holds another run ({', '.join(files)}): name "
            "another folder, remove this one, or resume its run, by "
            "load_snapshot(path, trainer) and RunRecord(..., resumed_from=path)"
        )


def read_record(
    folder: Path, remedy: str = "repair it, or remove it to go by the folder's name"
) -> dict[str, Any]:
    """Reads the record of a run.

    Args:
        folder (pathlib.Path): The run's folder.
        remedy (str): What to do when it is damaged, for the error.

    Returns:
        dict: What ``run.json`` holds; nothing if there is none. Files of older versions
        have no ``setting`` and no ``starts``.

    Raises:
        RunError: If it is damaged.
    """
    path = folder / FILENAME
    if not path.exists():
        return {}
    record = read_json(path, remedy)
    try:
        starts = record.get("starts", [])
        if not isinstance(starts, list):
            raise TypeError("'starts' is no list")
        for start in (record, *starts):
            _check_types(start)
            _setting_of_start(start)
    except (AttributeError, TypeError) as e:
        raise RunError(
            f"{path} is not the record of a run (a dict with a dict 'arguments'): "
            f"{remedy}"
        ) from e
    return record


def setting_of(record: Mapping[str, Any]) -> Setting | None:
    """Returns the setting of a run, ``None`` if it is not recorded.

    A value that was changed when the run was resumed is a text: what it was until
    which epoch, and what it is.
    """
    last = _setting_of_start(record)
    if last is None:
        return None
    values = dict(last.values)
    earlier = [
        (start.get("to_epoch"), setting)
        for start in record.get("starts", [])[:-1]
        if (setting := _setting_of_start(start)) is not None
    ]
    for name, value in last.values.items():
        parts: list[tuple[Any, Any]] = []
        for to, setting in earlier:
            was = setting.values.get(name)
            if parts and parts[-1][1] == was:
                parts.pop()
            parts.append((to, was))
        if parts and parts[-1][1] == value:
            parts.pop()
        if parts:
            before = ", ".join(f"{write_value(was)} to epoch {to}" for to, was in parts)
            values[name] = f"{before}, then {write_value(value)}"
    return dataclasses.replace(last, values=values)


def write_value(value: Any) -> str:
    """Writes the value of an argument."""
    if isinstance(value, list):
        return ",".join(map(write_value, value))
    return str(value)


def summary(log: Sequence[Mapping[str, float]]) -> dict[str, float | int | None]:
    """Returns epoch, best accuracy and its epoch, and final accuracies of a log.

    Best is not final, so both are given; an accuracy that is not a number counts as
    missing (``None``).
    """
    scores = [
        (entry[_ACCURACY], entry["epoch"])
        for entry in log
        if math.isfinite(entry.get(_ACCURACY, math.nan))
    ]
    best, best_epoch = max(scores, key=lambda score: score[0], default=(None, None))
    final, test = (
        log[-1].get(key, math.nan) if log else math.nan
        for key in (_ACCURACY, _TEST_ACCURACY)
    )
    return {
        "epoch": log[-1]["epoch"] if log else 0,
        "best_accuracy": best,
        "best_epoch": best_epoch,
        "final_accuracy": final if math.isfinite(final) else None,
        "test_accuracy": test if math.isfinite(test) else None,
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
    if isinstance(device, chainer.backend.GpuDevice):
        properties = cuda.cupy.cuda.runtime.getDeviceProperties(device.device.id)
        return properties["name"].decode()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _check_json(name: str, value: Any) -> None:
    """Raises a TypeError unless a value is of JSON types."""
    try:
        json.dumps(value)
    except TypeError as e:
        raise TypeError(
            f"{name!r} cannot be recorded ({e}): give numbers of Python, strings or "
            "lists, as by str(path), float(x) or array.tolist()"
        ) from e


def _starts_until(record: Mapping[str, Any], epoch: float) -> list[dict[str, Any]]:
    """Returns the starts that led to the end of an epoch, the last one up to it."""
    if not record:
        return []
    starts = record.get("starts")
    if starts is None:  # a file of an older version, which knows the last one only
        since = 0 if record.get("resumed_from") is None else None
        keys = ["command", "arguments", "versions", "device", "device_name"]
        keys += ["platform", "started", "resumed_from"]
        starts = [{**{k: record.get(k) for k in keys}, "from_epoch": since}]
    starts = [start for start in starts if (start.get("from_epoch") or 0) < epoch]
    return [*starts[:-1], *({**start, "to_epoch": epoch} for start in starts[-1:])]


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Tells what the numbers depend on that differs between two starts."""
    was, values = _basis(before), _basis(now)
    return [
        f"{name} was {was[name]} and is {value}"
        for name, value in values.items()
        if name in was and was[name] != value
    ]


def _basis(start: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the numbers of a start depend on besides its arguments."""
    names = ("device", "device_name", "ranks")
    basis = {name: start[name] for name in names if name in start}
    for kind in ("versions", "revive"):
        for name, value in (start.get(kind) or {}).items():
            parts = value if isinstance(value, dict) else {"": value}
            basis |= {f"{name} {part}".strip(): v for part, v in parts.items()}
    return basis


# What is read of a record, where it is there, and may be null.
_TYPES: dict[str, dict[str, tuple[Any, Any]]] = {
    "setting": {
        **dict.fromkeys(("values", "follows"), (dict, object)),
        **dict.fromkeys(("mixing", "main"), (list, str)),
        "title": (str, str),
    },
    "data": {"held_out": (str, str), "class_names": (list, str)},
    **{part: {} for part in ("arguments", "versions", "revive")},
}
_NEVER_NULL = _TYPES["setting"].keys()


def _check_types(start: Mapping[str, Any]) -> None:
    """Raises TypeError if something that reports read is of another type."""
    for part, types in _TYPES.items():
        values = start.get(part) or {}
        if not isinstance(values, dict):
            raise TypeError(f"'{part}' is {values!r}")
        for name, (kind, element) in types.items():
            content = values.get(name, kind())
            if content is None and name not in _NEVER_NULL:
                continue
            if not isinstance(content, kind) or not all(
                isinstance(value, element) for value in content
            ):
                raise TypeError(f"'{name}' in '{part}' is {content!r}")


def _setting_of_start(start: Mapping[str, Any]) -> Setting | None:
    if start.get("setting") is not None:
        fields = {field.name for field in dataclasses.fields(Setting)}
        known = {k: v for k, v in start["setting"].items() if k in fields}
        return Setting(**known)
    if start.get("arguments") is not None:
        return _setting_of_arguments(start["arguments"])
    return None


# The record of an older version has the arguments alone, of which these are not of the
# setting ...
_INCIDENTAL = frozenset(
    (
        *("seed", "out", "resume", "gpu", "device", "graph", "data_on_device"),
        *("analyse", "tensorboard"),
    )
)
# ... and these are those of mixing.
_MIXING = (
    *("mixup", "alpha", "layer_mix", "alpha_end", "per", "fold", "mixup_prob"),
    *("mixup_prob_end", "mixup_off_epoch", "cutmix_alpha", "switch_prob"),
)


def _setting_of_arguments(arguments: Mapping[str, Any]) -> Setting:
    mixup = arguments.get("mixup")
    mixes = None if mixup is None else mixup != "none"
    ignored = _INCIDENTAL | {"epoch"}
    if mixup == "none":
        ignored |= set(_MIXING) - {"mixup"}
    alphas = [arguments.get(k) for k in ("alpha", "alpha_end", "cutmix_alpha")]
    if any(alpha is not None for alpha in alphas):
        mixes = mixes and any(alphas)
    about = [arguments.get(key) for key in ("model", "dataset")]
    return Setting(
        {key: value for key, value in arguments.items() if key not in ignored},
        arguments.get("epoch"),
        " on ".join(str(word) for word in about if word is not None),
        _MIXING,
        mixes,
        ("dataset", "model", "mixup", "alpha"),
        {"layer_mix": "mixup"},
    )
