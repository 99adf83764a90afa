"""Groups training runs by their setting."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chainer_mmix.runs.runs import (
    TRAINING_LOSS,
    VALIDATION_ACCURACY,
    VALIDATION_LOSS,
    Run,
)

# Arguments that say where and how often a run ran, not what it trained.
INCIDENTAL = frozenset(
    {"seed", "out", "resume", "gpu", "device", "analyse", "tensorboard"}
)

# What --mixup none switches off.
_MIXING = {
    *("mixup", "alpha", "layer_mix", "alpha_end", "per", "fold", "mixup_prob"),
    *("mixup_prob_end", "mixup_off_epoch", "cutmix_alpha", "switch_prob"),
}

# Always said where they differ, and where nothing does.
_ESSENTIAL = ("dataset", "model", "mixup", "alpha")

# Nothing is mixed where all of them are 0.
_ALPHAS = ("alpha", "alpha_end", "cutmix_alpha")


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one setting, which differ only in their seed.

    Attributes:
        label (str): Names the arguments in which this group differs from the
            others.
        runs (tuple of Run): The runs, in the order in which they were given.
    """

    label: str
    runs: tuple[Run, ...]

    @property
    def mixes(self) -> bool | None:
        """Whether these runs mix; ``None`` when that is not recorded."""
        arguments = self.runs[0].arguments
        if arguments is None or "mixup" not in arguments:
            return None
        alphas = [arguments[k] for k in _ALPHAS if k in arguments]
        return arguments["mixup"] != "none" and (not alphas or any(alphas))


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups runs by setting, so that a group's runs differ only by their seed.

    Runs have the same setting when all recorded arguments but
    :data:`INCIDENTAL` are equal; what a run without mixing says about the
    mixing is ignored. A run without recorded arguments is a group of its own,
    named after its folder.

    Args:
        runs (sequence of Run): The runs.

    Returns:
        list of Group: The groups, in the order of their first runs.
    """
    settings = [setting_of(run) for run in runs]
    members: dict[str, list[int]] = {}
    for i, setting in enumerate(settings):
        key = f"run {i}" if setting is None else json.dumps(setting, sort_keys=True)
        members.setdefault(key, []).append(i)
    firsts = [indices[0] for indices in members.values()]
    names = _folder_names([runs[i].path for i in firsts])
    labels = _labels([settings[i] for i in firsts], names)
    return [
        Group(label, tuple(runs[i] for i in indices))
        for label, indices in zip(labels, members.values(), strict=True)
    ]


def differing_arguments(group: Group, other: Group) -> list[str]:
    """Names the arguments, mixing aside, in which two settings differ.

    Args:
        group, other (Group): The settings.

    Returns:
        list of str: The names; none where the arguments are not recorded.
    """
    a, b = (setting_of(g.runs[0]) for g in (group, other))
    if a is None or b is None:
        return []
    keys = (a.keys() & b.keys()) - _MIXING
    return sorted(key for key in keys if a[key] != b[key])


def find_flaws(groups: Sequence[Group]) -> list[str]:
    """Lists what makes a comparison of these groups doubtful.

    Args:
        groups (sequence of Group): What is to be compared.

    Returns:
        list of str: One line for each kind of flaw: runs that are not
        finished, that did different numbers of epochs, whose log has NaN, or
        that repeat a seed within their group.
    """
    runs = [run for group in groups for run in group.runs]
    flaws = []
    unfinished = [
        f"{run.path} ({reason})" for run in runs if (reason := _unfinished(run))
    ]
    if unfinished:
        flaws.append(f"not finished: {', '.join(unfinished)}")
    epochs: dict[int, list[str]] = {}
    for run in runs:
        epochs.setdefault(run.epochs, []).append(str(run.path))
    if len(epochs) > 1:
        parts = (f"{n} ({', '.join(epochs[n])})" for n in sorted(epochs))
        flaws.append(f"the runs differ in epochs done: {', '.join(parts)}")
    keys = (VALIDATION_ACCURACY, VALIDATION_LOSS, TRAINING_LOSS)
    diverged = [
        str(run.path)
        for run in runs
        if not all(np.isfinite(run.series(key)[1]).all() for key in keys)
    ]
    if diverged:
        flaws.append(f"NaN or infinite values in the log: {', '.join(diverged)}")
    for group in groups:
        seeds = [run.seed for run in group.runs if run.seed is not None]
        repeated = sorted({str(seed) for seed in seeds if seeds.count(seed) > 1})
        if repeated:
            flaws.append(
                f"more than one run of {group.label} has seed {', '.join(repeated)}: "
                "they are not independent, and ± comes out too small"
            )
    return flaws


def setting_of(run: Run) -> dict[str, Any] | None:
    """Returns the arguments by which a run is grouped, ``None`` without a record."""
    if run.arguments is None:
        return None
    ignored = set(INCIDENTAL)
    if run.arguments.get("mixup") == "none":
        ignored |= {"alpha", "layer_mix"}
    return {k: v for k, v in run.arguments.items() if k not in ignored}


def _labels(settings: Sequence[dict[str, Any] | None], names: list[str]) -> list[str]:
    known = [setting for setting in settings if setting is not None]
    keys = list(dict.fromkeys(key for setting in known for key in setting))
    differing = [k for k in keys if any(s.get(k) != known[0].get(k) for s in known)]
    points = {(s.get("mixup"), str(s.get("layer_mix"))) for s in known}
    if "layer_mix" in differing and len(points) == len({kind for kind, _ in points}):
        differing.remove("layer_mix")  # goes without saying: mixup tells it
    if not differing:
        # Nothing to tell apart.
        differing = [k for k in _ESSENTIAL if k in keys]
    usual = {key: _usual(known, key) for key in differing if key not in _ESSENTIAL}
    labels = []
    for setting, name in zip(settings, names, strict=True):
        parts = [
            f"{key}={format_value(setting[key])}"
            for key in differing
            if setting is not None
            and setting.get(key) is not None
            and json.dumps(setting[key]) != usual.get(key)
        ]
        labels.append(" ".join(parts) or name)
    return labels


def _usual(settings: Sequence[dict[str, Any]], key: str) -> str | None:
    """Returns the value, as JSON, of more than half of the settings, if there is one.

    It goes without saying where many options are compared one by one.
    """
    values = [json.dumps(setting.get(key)) for setting in settings]
    value, n = Counter(values).most_common(1)[0]
    return value if n > len(values) / 2 else None


def format_value(value: Any) -> str:
    """Writes the value of an argument."""
    if isinstance(value, list):
        return ",".join(map(format_value, value))
    return str(value)


def _folder_names(paths: Sequence[Path]) -> list[str]:
    """Names folders by as many of their last parts as tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for n in range(1, max(map(len, parts), default=1) + 1):
        names = [str(Path(*p[-n:])) for p in parts]
        if len(set(names)) == len(names):
            break
    return names


def _unfinished(run: Run) -> str | None:
    status = run.record.get("status")
    if status not in (None, "finished"):
        return str(status)
    planned = (run.arguments or {}).get("epoch")
    if isinstance(planned, int) and run.epochs < planned:
        return f"{run.epochs} of {planned} epochs"
    return None
