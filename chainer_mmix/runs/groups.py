"""Groups training runs by their setting."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chainer_mmix.runs.metric import Metric
from chainer_mmix.runs.record import write_value
from chainer_mmix.runs.run import Run


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
        setting = self.runs[0].setting
        return None if setting is None else setting.mixes


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups runs by setting, so that a group's runs differ only by their seed.

    A run whose setting is not recorded is a group of its own, named after its folder.

    Args:
        runs (sequence of Run): The runs.

    Returns:
        list of Group: The groups, in the order of their first runs.
    """
    members: dict[str, list[Run]] = {}
    for i, run in enumerate(runs):
        unknown = run.setting is None
        # What an older version did not have yet, its record does not have either.
        all_values = values_of(run)
        values = {k: v for k in all_values if (v := _value(all_values, k)) is not None}
        key = f"run {i}" if unknown else _dump(values)
        members.setdefault(key, []).append(run)
    firsts = [group[0] for group in members.values()]
    return [
        Group(label, tuple(group))
        for label, group in zip(_labels(firsts), members.values(), strict=True)
    ]


def differing_arguments(group: Group, other: Group) -> list[str]:
    """Names the arguments, mixing aside, in which two settings differ.

    Args:
        group, other (Group): The settings.

    Returns:
        list of str: The names; none where the arguments are not recorded.
    """
    a, b = (values_of(g.runs[0]) for g in (group, other))
    if not a or not b:
        return []
    settings = (g.runs[0].setting for g in (group, other))
    mixing = {name for setting in settings if setting for name in setting.mixing}
    keys = (a.keys() | b.keys()) - mixing
    keys -= {"epoch"} - (a.keys() & b.keys())  # which is not known of one
    return sorted(key for key in keys if _value(a, key) != _value(b, key))


def find_flaws(groups: Sequence[Group], metric: Metric) -> list[str]:
    """Lists what makes a comparison of these groups doubtful.

    Args:
        groups (sequence of Group): What is to be compared.
        metric (Metric): By which number.

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
    diverged = [
        str(run.path)
        for run in runs
        if not all(
            np.isfinite(run.series(key)[1]).all()
            for key in (
                metric.keys[run],
                metric.loss_key(run),
                metric.training_loss_key(run),
            )
        )
    ]
    if diverged:
        flaws.append(f"NaN or infinite values in the log: {', '.join(diverged)}")
    sets: dict[str, list[str]] = {}
    for run in runs:
        if name := run.data.get("held_out"):
            sets.setdefault(str(name), []).append(str(run.path))
    if len(sets) > 1:
        parts = (f"the {name} set ({', '.join(sets[name])})" for name in sorted(sets))
        flaws.append(f"the runs were validated on other data: {', '.join(parts)}")
    for group in groups:
        seeds = [run.seed for run in group.runs if run.seed is not None]
        repeated = sorted({str(seed) for seed in seeds if seeds.count(seed) > 1})
        if repeated:
            flaws.append(
                f"more than one run of {group.label} has seed {', '.join(repeated)}: "
                "they are not independent, and ± comes out too small"
            )
    return flaws


def values_of(run: Run) -> dict[str, Any]:
    """Returns the values by which a run is grouped; none if they are not recorded."""
    if run.setting is None:
        return {}
    epoch = {} if run.setting.epoch is None else {"epoch": run.setting.epoch}
    return {**run.setting.values, **epoch}


def _labels(runs: Sequence[Run]) -> list[str]:
    """Names runs by what tells their settings apart."""
    settings = [run.setting for run in runs if run.setting is not None]
    known = [run for run in runs if values_of(run)]
    main = {name for setting in settings for name in setting.main}
    mixing = {name for setting in settings for name in setting.mixing}
    keys = list(dict.fromkeys(key for run in known for key in values_of(run)))

    def goes_without(key: str, run: Run) -> bool:
        # How it would mix tells a run without mixing apart no more than mixup=none.
        is_off = run.setting is not None and run.setting.mixes is False
        unsaid = (mixing if is_off else set()) | {"epoch"}  # which is unknown
        return key in unsaid - values_of(run).keys()

    said = {
        key: [
            _value(values_of(run), key)
            for run in known
            if key in main or not goes_without(key, run)
        ]
        for key in keys
    }
    differing = [k for k, values in said.items() if any(v != values[0] for v in values)]
    follows = {k: v for setting in settings for k, v in setting.follows.items()}
    values = [values_of(run) for run in known]
    differing = [k for k in differing if not _is_told(k, follows.get(k), values)]
    usual = {key: _usual(said[key]) for key in differing if key not in main}
    labels = []
    folders = _folder_names([run.path for run in runs])
    for run, name in zip(runs, folders, strict=True):
        own = values_of(run)
        unusual = [
            key
            for key in differing
            if own and not goes_without(key, run)
            if _dump(_value(own, key)) != usual.get(key)
        ]
        essential = [key for key in keys if key in main and own.get(key) is not None]
        parts = [
            _write(key, _value(own, key), said[key]) for key in unusual or essential
        ]
        labels.append(" ".join(parts) or name)
    # Such as those of 1 and "1".
    n = Counter(labels)
    return [
        label if n[label] == 1 else f"{label} ({name})"
        for label, name in zip(labels, folders, strict=True)
    ]


def _value(values: Mapping[str, Any], key: str) -> Any:
    """Returns a value, ``None`` for what is off or has no value."""
    value = values.get(key)
    return None if value is False or value == [] else value


def _dump(value: Any) -> str:
    """Returns a value as JSON, the same for 1 and 1.0."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(one) for one in value]
        is_whole = isinstance(value, float) and value.is_integer()
        return int(value) if is_whole else value

    return json.dumps(plain(value), sort_keys=True)


def _write(key: str, value: Any, values: Sequence[Any]) -> str:
    """Writes a value, beside those that runs have."""
    if value is None:  # off, if it is a switch; else not given
        return f"no {key}" if any(v is True for v in values) else f"{key}=unset"
    return key if value is True else f"{key}={write_value(value)}"


def _is_told(key: str, by: str | None, settings: Sequence[dict[str, Any]]) -> bool:
    """Tells whether the value of one key follows from that of another."""
    if by is None:
        return False
    pairs = {(str(values.get(by)), str(values.get(key))) for values in settings}
    return len(pairs) == len({value for value, _ in pairs})


def _usual(values: Sequence[Any]) -> str | None:
    """Returns the value, as JSON, of more than half of the settings, if there is one.

    It goes without saying where many options are compared one by one.
    """
    value, n = Counter(map(_dump, values)).most_common(1)[0]
    return value if n > len(values) / 2 else None


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
    planned = None if run.setting is None else run.setting.epoch
    if isinstance(planned, int) and run.epochs < planned:
        return f"{run.epochs} of {planned} epochs"
    return None
