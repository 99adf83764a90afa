"""Writes a comparison of runs as text, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from chainer_mmix.runs.compare import Comparison, Difference, Spread, Summary

HEADINGS = (
    *("setting", "runs (seeds)", "best acc.", "final acc."),
    *("final error (%)", "final loss", "epochs", "time (s)"),
)
LEGEND = (
    "All numbers are from the validation data; ± is the sample standard deviation "
    "over runs.",
    "best: the highest of all epochs, picked on the validation data themselves and so "
    "too optimistic.",
    "final: after the last epoch, whatever it is: the honest one.",
)


def format_text(comparison: Comparison) -> str:
    """Writes a comparison for the terminal: an aligned table and its reading."""
    rows = [HEADINGS, *(cells(summary) for summary in comparison.summaries)]
    lines = [*_align(rows), "", *LEGEND]
    if comparison.differences:
        verdicts = [
            (f"  {difference.label}", *verdict(difference))
            for difference in comparison.differences
        ]
        lines += ["", difference_heading(comparison), *_align(verdicts)]
    return "\n".join(lines) + "\n"


def format_markdown(comparison: Comparison) -> str:
    """Writes a comparison as a Markdown table and its reading."""
    rows = [cells(summary) for summary in comparison.summaries]
    lines = [*_pipe_table(HEADINGS, rows), "", *(f"- {line}" for line in LEGEND)]
    if comparison.differences:
        headings = ("setting", "difference", "test")
        verdicts = [
            (difference.label, *verdict(difference))
            for difference in comparison.differences
        ]
        lines += ["", difference_heading(comparison), ""]
        lines += _pipe_table(headings, verdicts)
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


def cells(summary: Summary) -> tuple[str, ...]:
    """Writes one row of the table, under :data:`HEADINGS`."""
    n = len(summary.seeds)
    seeds = " ".join("?" if seed is None else str(seed) for seed in summary.seeds)
    known = any(seed is not None for seed in summary.seeds)
    low, high = min(summary.epochs), max(summary.epochs)
    return (
        summary.label,
        f"{n} ({seeds})" if known else str(n),
        format_spread(summary.best_accuracy, 4),
        format_spread(summary.final_accuracy, 4),
        format_spread(summary.final_error, 2),
        format_spread(summary.final_loss, 4),
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
    heading = (
        f"Final accuracy compared with {comparison.baseline}, in percentage points "
        "(± standard error):"
    )
    tested = sum(d.p_value is not None for d in comparison.differences)
    if any(d.standard_error is None for d in comparison.differences):
        heading += "\nA standard error takes two runs or more, each of its own seed."
    if tested > 1:
        heading += f"\nThe p-values are not corrected for there being {tested} of them."
    return heading


def verdict(difference: Difference) -> tuple[str, str]:
    """Writes a difference and what its test says."""
    points = f"{difference.points:+.2f}"
    if difference.standard_error is None:
        return points, ""
    points += f" ± {difference.standard_error:.2f}"
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
    spreads = ("best_accuracy", "final_accuracy", "final_error", "final_loss", "time")
    for name in spreads:
        spread = getattr(summary, name)
        unit = {"final_error": "_percent", "time": "_seconds"}.get(name, "")
        record[f"{name}{unit}_mean"] = spread and _finite(spread.mean)
        record[f"{name}{unit}_std"] = spread and _finite(spread.std)
    difference = next(
        (d for d in comparison.differences if d.label == summary.label), None
    )
    record["difference_points"] = difference and _finite(difference.points)
    record["standard_error_points"] = difference and _finite(difference.standard_error)
    record["p_value"] = difference and _finite(difference.p_value)
    record["test"] = difference and difference.test
    return record


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
