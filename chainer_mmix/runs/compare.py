"""Numbers that compare the settings of training runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainer_mmix.runs.groups import Group, differing_arguments, values_of
from chainer_mmix.runs.metric import Metric, choose_metric
from chainer_mmix.runs.run import Run


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of one number over several runs.

    Attributes:
        mean (float): The mean, NaN when a value is NaN.
        std (float or None): The sample standard deviation (``n - 1`` in the
            denominator), ``None`` for a single value.
        n (int): How many values there are.
    """

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Computes the spread of one or more values."""
        array = np.asarray(values, np.float64)
        if len(array) == 1 or (array == array[0]).all():
            # Exactly no spread, where rounding of the mean would leave some.
            mean, std = float(array[0]), 0.0
        else:
            with np.errstate(invalid="ignore"):
                mean, std = float(array.mean()), float(array.std(ddof=1))
        return cls(mean, std if len(array) > 1 else None, len(array))


@dataclass(frozen=True)
class Summary:
    """One row of the table: what the runs of a setting reached.

    Attributes:
        label (str): The setting.
        seeds (list): The seeds of the runs, ``None`` where not recorded.
        best (Spread): The best value of the metric of all epochs.
        final (Spread): Its value at the last evaluation.
        final_error (Spread or None): The same as an error, in percent; ``None`` if the
            metric is no share.
        final_loss (Spread or None): The loss of the last evaluation; ``None`` when a
            run has not logged it.
        epochs (list of int): The epochs that each run has done.
        time (Spread or None): Seconds of training; ``None`` when a run has not
            recorded it.
    """

    label: str
    seeds: list[Any]
    best: Spread
    final: Spread
    final_error: Spread | None
    final_loss: Spread | None
    epochs: list[int]
    time: Spread | None


@dataclass(frozen=True)
class Difference:
    """How far the final value of a setting is from that of another.

    Attributes:
        label (str): The setting.
        baseline (str): The other one.
        value (float): Setting minus baseline; in percentage points if the metric is a
            share.
        standard_error (float or None): The standard error of ``value``;
            ``None`` when either setting has a single run or repeats a seed.
        p_value (float or None): Two-sided p-value of the test; ``None`` when
            either setting has a single run or neither has any spread.
        test (str or None): Which test: a paired t-test over the seeds when both
            settings have the same ones, else Welch's.
    """

    label: str
    baseline: str
    value: float
    standard_error: float | None
    p_value: float | None
    test: str | None


@dataclass(frozen=True)
class Comparison:
    """Summaries of all settings, and the differences to those without mixing.

    Attributes:
        summaries (list of Summary): One for each setting.
        baseline (str): The label of the setting that others are measured against.
        differences (list of Difference): One for each other setting.
        flaws (list of str): What makes the comparison doubtful, a line each.
        metric (Metric): By which number they are compared.
    """

    summaries: list[Summary]
    baseline: str
    differences: list[Difference]
    flaws: list[str]
    metric: Metric


def compare_groups(
    groups: Sequence[Group], flaws: Sequence[str] = (), metric: Metric | None = None
) -> Comparison:
    """Compares settings by what their validation says.

    A group that mixes is compared with the one without mixing from which it differs in
    mixing alone. If there is none, and for groups without mixing, it is the baseline:
    of the groups known not to mix, or else of all, the first of those for which the
    fewest arguments have a value other than 0, ``False`` and ``None``.

    Args:
        groups (sequence of Group): One or more settings, as from
            :func:`~chainer_mmix.runs.groups.group_runs`.
        flaws (sequence of str): Passed on to the result.
        metric (Metric): By which number; by default the best guess
            (:func:`~chainer_mmix.runs.metric.choose_metric`).

    Returns:
        Comparison: The numbers.

    Raises:
        RunError: If the runs have no number in common by which to compare them.
    """
    if metric is None:
        metric = choose_metric([run for group in groups for run in group.runs])
    plain = [group for group in groups if group.mixes is False] or groups
    baseline = min(plain, key=lambda group: _n_on(group))
    pairs = [
        (group, _without_mixing(group, [baseline, *groups]) or baseline)
        for group in groups
        if group is not baseline
    ]
    return Comparison(
        [_summarize(group, metric) for group in groups],
        baseline.label,
        [_difference(group, other, metric) for group, other in pairs],
        [*flaws, *metric.flaws, *_unlike(pairs, baseline)],
        metric,
    )


def _n_on(group: Group) -> int:
    return sum(map(bool, values_of(group.runs[0]).values()))


def _without_mixing(group: Group, groups: Sequence[Group]) -> Group | None:
    """Finds the setting that a mixing one would be if it did not mix."""
    if not group.mixes:
        return None
    others = (other for other in groups if other.mixes is False)
    return next((g for g in others if not differing_arguments(group, g)), None)


def _unlike(pairs: Sequence[tuple[Group, Group]], baseline: Group) -> list[str]:
    """Says which settings differ from the baseline in more than mixing."""
    unlike = [
        f"{group.label} ({', '.join(differing)})"
        for group, other in pairs
        if (differing := differing_arguments(group, other))
    ]
    if not unlike:
        return []
    return [
        f"the difference to {baseline.label} is not one of mixing alone for "
        f"{'; '.join(unlike)}"
    ]


def final_spread(group: Group, key: str) -> Spread | None:
    """Returns the spread of a key's last values, ``None`` if no run has logged it.

    Args:
        group (Group): The runs. Those that have not logged it do not count.
        key (str): A key of their logs.
    """
    finals = [_final(run, key) for run in group.runs]
    known = [value for value in finals if value is not None]
    return Spread.of(known) if known else None


def _summarize(group: Group, metric: Metric) -> Summary:
    final = _finals(group, metric)
    best = np.fmin.reduce if metric.lower_is_better else np.fmax.reduce
    errors = [100 * (1 - accuracy) for accuracy in final]
    return Summary(
        group.label,
        [run.seed for run in group.runs],
        Spread.of([float(best(metric.series(run)[1])) for run in group.runs]),
        Spread.of(final),
        Spread.of(errors) if metric.is_share else None,
        _spread_if_known(_final(run, metric.loss_key(run)) for run in group.runs),
        [run.epochs for run in group.runs],
        _spread_if_known(run.time for run in group.runs),
    )


def _finals(group: Group, metric: Metric) -> list[float]:
    return [float(metric.series(run)[1][-1]) for run in group.runs]


def _final(run: Run, key: str) -> float | None:
    values = run.series(key)[1]
    return float(values[-1]) if len(values) else None


def _spread_if_known(values: Iterable[float | None]) -> Spread | None:
    all_values = list(values)
    known = [value for value in all_values if value is not None]
    return Spread.of(known) if len(known) == len(all_values) else None


def _difference(group: Group, baseline: Group, metric: Metric) -> Difference:
    labels = group.label, baseline.label
    scale = 100 if metric.is_share else 1
    finals = [[scale * x for x in _finals(g, metric)] for g in (group, baseline)]
    spread_a, spread_b = map(Spread.of, finals)
    value = spread_a.mean - spread_b.mean
    independent = _independent(group) and _independent(baseline)
    if spread_a.std is None or spread_b.std is None or not independent:
        return Difference(*labels, value, None, None, None)
    pairs = _pairs(group, baseline)
    if pairs is not None:
        test = "paired t-test"
        deltas = [finals[0][i] - finals[1][j] for i, j in pairs]
        error = (Spread.of(deltas).std or 0.0) / math.sqrt(len(deltas))
    else:
        test = "Welch's t-test"
        error = math.hypot(
            spread_a.std / math.sqrt(spread_a.n), spread_b.std / math.sqrt(spread_b.n)
        )
    # What is left where all differences are the same is their rounding.
    if not error > 1e-12 * max(map(abs, (*finals[0], *finals[1]))):
        return Difference(*labels, value, 0.0 * error, None, None)
    from scipy import stats  # takes a second to import: only where it is needed

    if pairs is not None:
        p = 2 * stats.t.sf(abs(value) / error, len(pairs) - 1)
    else:
        p = stats.ttest_ind_from_stats(
            *(spread_a.mean, spread_a.std, spread_a.n),
            *(spread_b.mean, spread_b.std, spread_b.n),
            equal_var=False,
        ).pvalue
    return Difference(*labels, value, error, float(p), test)


def _independent(group: Group) -> bool:
    seeds = [run.seed for run in group.runs if run.seed is not None]
    return len(set(seeds)) == len(seeds)


def _pairs(group: Group, baseline: Group) -> list[tuple[int, int]] | None:
    """Pairs the runs of one seed, which share their data and initial weights.

    Returns ``None`` unless both groups have the same seeds, each once.
    """
    a, b = ([run.seed for run in g.runs] for g in (group, baseline))
    if None in a or sorted(map(str, a)) != sorted(map(str, b)):
        return None
    return [(i, b.index(seed)) for i, seed in enumerate(a)]
