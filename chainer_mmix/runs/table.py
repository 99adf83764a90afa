"""Writes a comparison of runs as text, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from chainer_mmix.runs.compare import Comparison, Difference, Spread, Summary
from chainer_mmix.runs.metric import Metric


def headings(comparison: Comparison) -> tuple[str, ...]:
    """Returns what stands over the table."""
    metric = comparison.metric
    name = "acc." if metric.name == "accuracy" else metric.name
    return (
        *("setting", "runs (seeds)", f"best {name}", f"final {name}"),
        *(("final error (%)",) if metric.is_share else ()),
        *(() if metric.is_loss else ("final loss",)),
        *("epochs", "time (s)"),
    )


def legend(comparison: Comparison) -> tuple[str, ...]:
    """Returns how to read the table, a line each."""
    metric = comparison.metric
    where, picked = "the validation data", "the validation data themselves"
    if metric.held_out is not None:
        where = f"the {metric.held_out} set"
        picked = f"{where} itself"
    elif (keys := {*metric.keys.values()}) != {f"validation/main/{metric.name}"}:
        where = f"{' and '.join(sorted(keys))} in the log{'s' * (len(keys) > 1)}"
        picked = "the same data"
    extreme = "lowest" if metric.lower_is_better else "highest"
    time = (
        "time: of training and evaluation; the first run on a machine compiles, too.",
    )
    is_timed = any(summary.time for summary in comparison.summaries)
    return (
        f"All numbers are from {where}; ± is the sample standard deviation over runs.",
        f"best: the {extreme} of all epochs, picked on {picked} and so too optimistic.",
        "final: after the last epoch, whatever it is: the honest one.",
        *(time if is_timed else ()),
    )


def format_text(comparison: Comparison) -> str:
    """Writes a comparison for the terminal: an aligned table and its reading."""
    rows = [headings(comparison), *rows_of(comparison)]
    lines = [*_align(rows), "", *legend(comparison)]
    if comparison.differences:
        verdicts = [
            (f"  {label}", *verdict) for label, *verdict in verdicts_of(comparison)
        ]
        lines += ["", difference_heading(comparison), *_align(verdicts)]
    return "\n".join(lines) + "\n"


def format_markdown(comparison: Comparison) -> str:
    """Writes a comparison as a Markdown table and its reading."""
    lines = _pipe_table(headings(comparison), rows_of(comparison))
    lines += ["", *(f"- {line}" for line in legend(comparison))]
    if comparison.differences:
        columns = ("setting", "difference", "test")
        lines += ["", difference_heading(comparison), ""]
        lines += _pipe_table(columns, verdicts_of(comparison))
    return "\n".join(lines) + "\n"


def format_csv(comparison: Comparison) -> str:
    """Writes a comparison as CSV, one line a setting, in full precision."""
    records = [_record(comparison, summary) for summary in comparison.summaries]
    for record in records:
        record["seeds"] = " ".join(
            "?" if s is None else str(s) for s in record["seeds"]
        )
        record["epochs"] = " ".join(map(str, record["epochs"]))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def format_json(comparison: Comparison) -> str:
    """Writes a comparison as JSON in full precision; NaN becomes ``null``."""
    content = {
        "metric": comparison.metric.key,
        "baseline": comparison.baseline,
        "settings": [_record(comparison, s) for s in comparison.summaries],
        "warnings": comparison.flaws,
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "text": format_text,
    "markdown": format_markdown,
    "csv": format_csv,
    "json": format_json,
}


def rows_of(comparison: Comparison) -> list[tuple[str, ...]]:
    """Writes the rows of the table, one a setting, under :func:`headings`."""
    return [_cells(summary, comparison.metric) for summary in comparison.summaries]


def _cells(summary: Summary, metric: Metric) -> tuple[str, ...]:
    n = len(summary.seeds)
    seeds = " ".join("?" if seed is None else str(seed) for seed in summary.seeds)
    known = any(seed is not None for seed in summary.seeds)
    low, high = min(summary.epochs), max(summary.epochs)
    error, loss = format_spread(summary.final_error, 2), summary.final_loss
    return (
        summary.label,
        f"{n} ({seeds})" if known else str(n),
        format_spread(summary.best, 4),
        format_spread(summary.final, 4),
        *((error,) if metric.is_share else ()),
        *(() if metric.is_loss else (format_spread(loss, 4),)),
        str(low) if low == high else f"{low}-{high}",
        format_spread(summary.time, 1),
    )


def format_spread(spread: Spread | None, digits: int) -> str:
    """Writes a mean ± standard deviation, ``-`` where there is none."""
    if spread is None:
        return "-"
    mean = f"{spread.mean:.{digits}f}"
    return mean if spread.std is None else f"{mean} ± {spread.std:.{digits}f}"


def difference_heading(comparison: Comparison) -> str:
    """Says in a line or more what the differences are and how to read them."""
    metric = comparison.metric
    unit = ", in percentage points" if metric.is_share else ""
    sense = ", where less is better" if metric.lower_is_better else ""
    what = f"Final {metric.name} compared with {comparison.baseline}"
    if _has_several_baselines(comparison):
        what = f"Differences of the final {metric.name}"
    heading = f"{what}{unit}{sense} (± standard error):"
    tested = sum(d.p_value is not None for d in comparison.differences)
    if any(d.standard_error is None for d in comparison.differences):
        heading += "\nA standard error takes two runs or more, each of its own seed."
    if tested > 1:
        heading += f"\nThe p-values are not corrected for there being {tested} of them."
    return heading


def verdicts_of(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Writes the differences, one a row: of what, how large, and what the test says."""
    tells = _has_several_baselines(comparison)
    return [
        (
            f"{difference.label} − {difference.baseline}"
            if tells
            else difference.label,
            *_verdict(difference, comparison.metric.is_share),
        )
        for difference in comparison.differences
    ]


def _has_several_baselines(comparison: Comparison) -> bool:
    return len({difference.baseline for difference in comparison.differences}) > 1


def _verdict(difference: Difference, is_share: bool) -> tuple[str, str]:
    digits = 2 if is_share else 4
    points = f"{difference.value:+.{digits}f}"
    if difference.standard_error is None:
        return points, ""
    points += f" ± {difference.standard_error:.{digits}f}"
    p = difference.p_value
    if p is None:
        return points, "no test without a spread over the runs"
    word = "significant" if p < 0.05 else "not significant"
    value = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return points, f"{value}, {word} at the 5 % level ({difference.test})"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _pipe_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [headings, ["---"] * len(headings), *cells]
    return [f"| {' | '.join(line)} |" for line in lines]


def _record(comparison: Comparison, summary: Summary) -> dict[str, Any]:
    record: dict[str, Any] = {
        "setting": summary.label,
        "runs": len(summary.seeds),
        "seeds": summary.seeds,
        "epochs": summary.epochs,
    }
    name = comparison.metric.name
    spreads: dict[str, Spread | None]
    spreads = {f"best_{name}": summary.best, f"final_{name}": summary.final}
    if comparison.metric.is_share:
        spreads["final_error_percent"] = summary.final_error
    if not comparison.metric.is_loss:
        spreads["final_loss"] = summary.final_loss
    spreads["time_seconds"] = summary.time
    for column, spread in spreads.items():
        record[f"{column}_mean"] = spread and _finite(spread.mean)
        record[f"{column}_std"] = spread and _finite(spread.std)
    difference = next(
        (d for d in comparison.differences if d.label == summary.label), None
    )
    unit = "_points" if comparison.metric.is_share else ""
    record["baseline"] = difference and difference.baseline
    record[f"difference{unit}"] = difference and _finite(difference.value)
    record[f"standard_error{unit}"] = difference and _finite(difference.standard_error)
    record["p_value"] = difference and _finite(difference.p_value)
    record["test"] = difference and difference.test
    return record


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
