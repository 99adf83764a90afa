"""Shows training runs on one page of HTML that needs no other file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chainer_mmix.analysis.calibration import pool
from chainer_mmix.progress import Progress
from chainer_mmix.runs import page
from chainer_mmix.runs.compare import Comparison, final_spread
from chainer_mmix.runs.curves import (
    CURVES_NOTE,
    draw_losses,
    draw_metric,
    group_style,
)
from chainer_mmix.runs.files import RunError
from chainer_mmix.runs.groups import Group, values_of
from chainer_mmix.runs.log import number_keys
from chainer_mmix.runs.metric import Metric
from chainer_mmix.runs.mixup import MixupCounts
from chainer_mmix.runs.record import write_value
from chainer_mmix.runs.reliability import read_reliability
from chainer_mmix.runs.run import Run
from chainer_mmix.runs.table import (
    difference_heading,
    format_spread,
    headings,
    legend,
    rows_of,
    verdicts_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]\d+)?)"
_FGSM = re.compile(rf"(.*)/fgsm_accuracy/{_NUMBER}")
_DEFORMED = re.compile(rf"(.*)/deformed_accuracy/([a-z]+)_{_NUMBER}")
_CALIBRATION = re.compile(r"(.*)/(ece|nll|brier)")
_MEASURES = {
    "ece": "expected calibration error",
    "nll": "negative log-likelihood",
    "brier": "Brier score",
}
# A share of fewer predictions says little.
_FEW = 10
# Drawn by the script from what the section on curves shows.
_CURVES = {"loss.png", "accuracy.png"}
_NAMES = 20  # of classes that are listed
_PNG = b"\x89PNG\r\n\x1a\n"
_UNITS = {
    "rotation": "largest angle (degrees)",
    "shear": "largest angle (degrees)",
    "zoom": "share of height and width that fills the frame",
}
_SPREAD = "mean ± sample standard deviation over runs"
_LAST = f"At the last evaluation: {_SPREAD}."
_LAST_LOGGED = (
    f"The last value of each run: {_SPREAD}. The epoch is named where the last one has "
    "no value."
)


def make_report(
    groups: Sequence[Group], comparison: Comparison, command: str, quiet: bool = False
) -> str:
    """Shows runs and their comparison on a page of HTML.

    The page loads nothing and runs no script. From the runs' folders it takes their
    PNG pictures and ``mixup.json``, where there are any.

    Args:
        groups (sequence of Group): The settings.
        comparison (Comparison): What compares them.
        command (str): The command that writes this page again.
        quiet (bool): Whether :class:`~chainer_mmix.progress.Progress` is to be told by
            plain lines on a terminal too. The default is ``False``.

    Returns:
        str: The page.

    Raises:
        RunError: If a picture or ``mixup.json`` is damaged.
    """
    runs = [run for group in groups for run in group.runs]
    titles = dict.fromkeys(run.setting.title for run in runs if run.setting)
    counts = f"{_count(len(groups), 'setting')}, {_count(len(runs), 'run')}"
    lead = page.paragraph(counts + ".") + page.bullets(comparison.flaws, "warnings")
    sections = {
        "Comparison": lambda: _comparison(comparison),
        "Curves": lambda: _curves(groups, comparison.metric),
        "Robustness": lambda: _fgsm(groups) + _deformations(groups),
        "Calibration": lambda: _calibration(groups),
        "Mixing": lambda: _mixing(groups),
        "Pictures": lambda: _pictures(groups),
        "Settings": lambda: _settings(groups),
        "Other numbers": lambda: _others(groups, comparison.metric),
        "Reproduce": lambda: _reproduce(runs, command),
    }
    written = []
    with Progress(len(sections), quiet) as progress:
        for heading, write in sections.items():
            progress(heading)
            written.append((heading, write()))
    return page.page(", ".join(filter(None, titles)) or "Training runs", lead, written)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _comparison(comparison: Comparison) -> str:
    where = comparison.metric.held_out
    caption = "Validation" if comparison.metric.is_evaluated else "In the logs"
    caption = caption if where is None else f"On the {where} set"
    caption += ", mean ± standard deviation"
    content = page.table(caption, headings(comparison), rows_of(comparison))
    content += page.bullets(legend(comparison), "notes")
    if comparison.differences:
        caption, *notes = difference_heading(comparison).split("\n")
        rows = verdicts_of(comparison)
        columns = ("setting", "difference", "test")
        content += page.table(caption.rstrip(":"), columns, rows, "words")
        content += page.bullets(notes, "notes")
    return content


def _curves(groups: Sequence[Group], metric: Metric) -> str:
    drawings = [
        _draw(metric.title, lambda axes: draw_metric(axes, groups, metric)),
        _draw("Losses", lambda axes: draw_losses(axes, groups, metric)),
    ]
    notes = CURVES_NOTE.split("\n")
    return _legend(groups) + page.figures(drawings) + page.bullets(notes, "notes")


def _fgsm(groups: Sequence[Group]) -> str:
    content = ""
    found = _find(groups, _FGSM)
    for prefix in _prefixes(found):
        keys = {float(eps): k for (p, eps), k in found.items() if p == prefix}
        caption = f"Accuracy under attack by FGSM ({prefix})"
        content += _key_table(
            caption, groups, {f"ε = {eps:g}": keys[eps] for eps in sorted(keys)}
        )
        if len(keys) > 1:
            drawing = _draw_amounts(groups, keys, "ε", "Accuracy under FGSM")
            content += _legend(groups, keys.values()) + page.figures([drawing])
    return content


def _deformations(groups: Sequence[Group]) -> str:
    content = ""
    found = _find(groups, _DEFORMED)
    for prefix in _prefixes(found):
        kinds: dict[str, dict[float, str]] = {}
        for (p, kind, amount), key in found.items():
            if p == prefix:
                kinds.setdefault(kind, {})[float(amount)] = key
        names = {
            f"{kind} {amount:g}": kinds[kind][amount]
            for kind in kinds
            for amount in sorted(kinds[kind])
        }
        caption = f"Accuracy on deformed images ({prefix})"
        content += _key_table(caption, groups, names)
        drawings = [
            _draw_amounts(groups, keys, _UNITS.get(kind, kind), f"Accuracy by {kind}")
            for kind, keys in kinds.items()
            if len(keys) > 1
        ]
        if drawings:
            content += _legend(groups, names.values()) + page.figures(drawings)
    return content


def _calibration(groups: Sequence[Group]) -> str:
    content = ""
    found = _find(groups, _CALIBRATION)
    for prefix in _prefixes(found):
        names = {
            text: found[prefix, short]
            for short, text in _MEASURES.items()
            if (prefix, short) in found
        }
        caption = f"Calibration ({prefix}): lower is better"
        content += _key_table(caption, groups, names)
    return content + _reliability(groups)


def _reliability(groups: Sequence[Group]) -> str:
    lines, names = [], []
    for i, group in enumerate(groups):
        read = (read_reliability(run.path) for run in group.runs)
        found = [bins for bins in read if bins]
        if found:
            try:
                lines.append((pool(found), group_style(i)))
            except ValueError as e:
                raise RunError(
                    f"the files reliability.json of {group.label} do not fit together "
                    f"({e}): evaluate all its runs with the same n_bins"
                ) from e
            names.append((group.label, group_style(i)))
    if not lines:
        return ""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="gray", linestyle=":")
        for bins, style in lines:
            filled = bins.count >= _FEW
            # A bin that stands alone is no line.
            style = style | {"marker": style["marker"] or "."}
            axes.plot(bins.confidence[filled], bins.accuracy[filled], **style)
        axes.set_title("Reliability")
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        axes.grid(alpha=0.3)

    notes = [
        "Share of right predictions at each confidence: above the dotted line the "
        "network is underconfident, below it overconfident.",
        f"All runs of a setting together, at the last evaluation; bins of {_FEW} "
        "predictions or more.",
    ]
    content = page.legend(names) + page.figures([_draw("Reliability", draw)])
    return content + page.bullets(notes, "notes")


def _mixing(groups: Sequence[Group]) -> str:
    reports = [
        [r for run in group.runs if (r := MixupCounts.read(run.path))]
        for group in groups
    ]
    points: dict[str, None] = {}
    for report in (report for group in reports for report in group):
        points |= dict.fromkeys(p for p, n in report.layer.items() if n)
    rows, losses, lines, names = [], [], [], []
    for i, (group, found) in enumerate(zip(groups, reports, strict=True)):
        drawn = [sum(r.layer.get(point, 0) for r in found) for point in points]
        if not sum(drawn):
            continue
        rows.append((group.label, *(f"{n / sum(drawn):.3f}" for n in drawn)))
        means = [_mean_loss(found, point) for point in points]
        if any(mean is not None for mean in means):
            texts = ("-" if mean is None else f"{mean:.4f}" for mean in means)
            losses.append((group.label, *texts))
        counts = np.sum([r.counts for r in found], axis=0)
        if counts.sum():
            edges = found[0].bin_edges
            lines.append((counts / counts.sum(), edges, group_style(i)["color"]))
            names.append((group.label, group_style(i) | {"marker": ""}))

    def draw(axes: Axes) -> None:
        for values, edges, color in lines:
            axes.stairs(values, edges, color=color, linewidth=1.5)
        axes.set_title("λ that were drawn")
        axes.set_xlabel("λ")
        axes.set_ylabel("share")
        axes.set_ylim(bottom=0)

    if not rows:
        return ""
    caption = "Share of the iterations by mixing point"
    content = page.table(caption, ("setting", *points), rows)
    if losses:
        caption = "Mean training loss by mixing point"
        content += page.table(caption, ("setting", *points), losses)
    if lines:
        content += page.legend(names) + page.figures([_draw("λ that were drawn", draw)])
    return content


def _mean_loss(reports: Sequence[MixupCounts], point: str) -> float | None:
    """Averages the loss at a mixing point over all its iterations in some runs."""
    known = [
        (loss, n)
        for r in reports
        if (n := r.layer.get(point)) and (loss := r.loss.get(point)) is not None
    ]
    if not known:
        return None
    losses, weights = zip(*known, strict=True)
    return float(np.average(losses, weights=weights))


def _pictures(groups: Sequence[Group]) -> str:
    found: dict[str, list[str]] = {}
    for group in groups:
        run = group.runs[0]
        for path in sorted(run.path.glob("*.png")):
            if path.name not in _CURVES:
                name = f"{path.name}: {group.label}"
                name += "" if run.seed is None else f", seed {run.seed}"
                pictures = found.setdefault(path.name, [])
                pictures.append(page.picture(_read_picture(path), name))
    note = "Of each setting, the pictures of the first run."
    content = page.paragraph(note) if found else ""
    return content + "".join(page.figures(found[name]) for name in sorted(found))


def _read_picture(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as e:
        raise RunError(
            f"{path} cannot be read ({e.strerror}): check its permissions"
        ) from e
    if not (content.startswith(_PNG) and b"IEND" in content[-8:]):
        raise RunError(f"{path} is damaged or no PNG: remove it or train anew")
    return content


def _settings(groups: Sequence[Group]) -> str:
    settings = {
        group.label: values_of(group.runs[0]) | _data(group.runs[0]) for group in groups
    }
    keys = dict.fromkeys(key for values in settings.values() for key in values)
    texts = {
        key: [_text(values.get(key)) for values in settings.values()] for key in keys
    }
    rows = [(key, *values) for key, values in texts.items() if len(set(values)) > 1]
    content = ""
    if rows:
        columns = ("argument", *settings)
        content += page.table("What differs", columns, rows, "words")
    rows = [(key, v[0]) for key, v in texts.items() if len(set(v)) == 1 and v[0] != "-"]
    if rows:
        content += page.table("In all runs", ("argument", "value"), rows, "words")
    return content


def _data(run: Run) -> dict[str, Any]:
    """Returns what a run was trained and evaluated on, for people."""
    data = run.data
    if not data:
        return {}
    names = list(map(str, data.get("class_names", [])))
    more = [f"and {len(names) - _NAMES} more"] if len(names) > _NAMES else []
    return {
        "training images": data.get("n_train"),
        "validated on": f"{data.get('n_held_out')} images of the "
        f"{data.get('held_out')} set",
        "classes": ", ".join([*names[:_NAMES], *more]) or None,
    }


def _others(groups: Sequence[Group], metric: Metric) -> str:
    shown = {"epoch", "iteration", "elapsed_time", *metric.keys.values()}
    shown |= {metric.loss_key(run) for run in metric.keys}
    for pattern in (_FGSM, _DEFORMED, _CALIBRATION):
        shown |= set(_find(groups, pattern).values())
    keys = {key: key for key in _keys(groups) if key not in shown}
    caption = "Last values in the log"
    return _key_table(caption, groups, keys, _LAST_LOGGED) if keys else ""


def _reproduce(runs: Sequence[Run], command: str) -> str:
    keys = ("status", "started", "device", "device_name", "platform")
    rows = [
        (str(run.path), _text(run.seed), *(_text(run.record.get(k)) for k in keys))
        for run in runs
    ]
    columns = ("folder", "seed", *(key.replace("_", " ") for key in keys))
    content = page.table("Runs", columns, rows, "facts")
    versions: dict[str, list[str]] = {}
    for recorded in (run.record.get(k) for run in runs for k in ("versions", "revive")):
        for name, version in (recorded if isinstance(recorded, dict) else {}).items():
            if isinstance(version, dict):
                version = ", ".join(f"{k} {_text(v)}" for k, v in version.items())
            versions.setdefault(name, []).append(_text(version))
    rows = [(name, ", ".join(dict.fromkeys(v))) for name, v in versions.items()]
    if rows:
        content += page.table("Versions", ("what", "version"), rows, "words")
    commands = [
        str(start["command"])
        for run in runs
        for start in run.record.get("starts", [run.record])
        if "command" in start
    ]
    if commands:
        content += "<h3>The runs</h3>\n" + "".join(map(page.code, commands))
    return content + "<h3>This page</h3>\n" + page.code(command)


def _text(value: Any) -> str:
    return "-" if value is None or value == [] else write_value(value)


def _keys(groups: Sequence[Group]) -> list[str]:
    """Lists the keys of the logs whose values are numbers."""
    return number_keys([e for group in groups for run in group.runs for e in run.log])


def _find(groups: Sequence[Group], pattern: re.Pattern) -> dict[tuple[str, ...], str]:
    matches = [pattern.fullmatch(key) for key in _keys(groups)]
    return {m.groups(): m[0] for m in matches if m}


def _prefixes(found: dict[tuple[str, ...], str]) -> list[str]:
    return list(dict.fromkeys(prefix for prefix, *_ in found))


def _key_table(
    caption: str, groups: Sequence[Group], keys: dict[str, str], note: str = _LAST
) -> str:
    """Writes the last values of some keys, one a row, as there may be many."""
    rows = [
        (name, *(_final_text(group, key) for group in groups))
        for name, key in keys.items()
    ]
    columns = ("", *(group.label for group in groups))
    return page.table(caption, columns, rows) + page.bullets([note], "notes")


def _final_text(group: Group, key: str) -> str:
    spread, n = final_spread(group, key), len(group.runs)
    of = [] if spread is None or spread.n == n else [f"{spread.n} of {n} runs"]
    ends = [(run.epochs, run.series(key)[0]) for run in group.runs]
    old = [epochs[-1] for end, epochs in ends if len(epochs) and epochs[-1] < end]
    if old:
        first, last = min(old), max(old)
        until = f"s {first:g} to" if first < last else ""
        of.append(f"epoch{until} {last:g}")
    return format_spread(spread, 4) + (f" ({', '.join(of)})" if of else "")


def _legend(groups: Sequence[Group], keys: Iterable[str] | None = None) -> str:
    """Names the lines of the settings, of those that have logged one of some keys."""
    wanted = None if keys is None else set(keys)
    return page.legend(
        [
            (group.label, group_style(i))
            for i, group in enumerate(groups)
            if wanted is None or not wanted.isdisjoint(_keys([group]))
        ]
    )


def _draw(name: str, draw: Callable[[Axes], None]) -> str:
    from matplotlib.figure import Figure

    # So small that a telephone shows the text in its size.
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    draw(figure.add_subplot())
    return page.drawing(figure, name)


def _draw_amounts(
    groups: Sequence[Group], keys: dict[float, str], label: str, name: str
) -> str:
    def draw(axes: Axes) -> None:
        amounts = sorted(keys)
        # Side by side, so that no error bar hides another.
        step = (amounts[-1] - amounts[0]) * min(0.015, 0.1 / len(groups))
        for i, group in enumerate(groups):
            spreads = [final_spread(group, keys[amount]) for amount in amounts]
            axes.errorbar(
                np.array(amounts) + step * (i - (len(groups) - 1) / 2),
                [math.nan if s is None else s.mean for s in spreads],
                [0 if s is None else s.std or 0 for s in spreads],
                color=group_style(i)["color"],
                marker=group_style(i)["marker"] or ".",
                capsize=3,
            )
        axes.set_title(name)
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy")
        axes.grid(alpha=0.3)

    return _draw(name, draw)
