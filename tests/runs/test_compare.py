import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from chainer_mmix.runs.compare import Spread, compare_groups
from chainer_mmix.runs.groups import group_runs
from chainer_mmix.runs.run import Run, read_run
from chainer_mmix.runs.table import FORMATS

numbers = st.floats(0, 1, allow_subnormal=False)


def make_run(accuracy, **arguments):
    log = [{"epoch": 1, "validation/main/accuracy": accuracy}]
    return Run(Path(), log, {"arguments": arguments})


def compare(runs):
    return compare_groups(group_runs(runs))


@given(st.lists(numbers, min_size=2, max_size=8))
def test_spread_is_mean_and_sample_deviation(values):
    spread = Spread.of(values)
    assert spread.mean == pytest.approx(statistics.mean(values), abs=1e-12)
    assert spread.std == pytest.approx(statistics.stdev(values), abs=1e-12)
    assert spread.n == len(values)


def test_spread_of_one_value_has_no_deviation():
    assert Spread.of([0.3]) == Spread(0.3, None, 1)


def test_spread_of_equal_values_is_exactly_zero():
    assert np.std([0.1] * 3, ddof=1) > 0  # what rounding would leave
    assert Spread.of([0.1] * 3) == Spread(0.1, 0.0, 3)


@given(
    st.lists(st.tuples(st.sampled_from(["none", "input", "manifold"]), numbers)).filter(
        len
    )
)
def test_any_mixture_of_settings_and_seeds_gives_numpys_statistics(draws):
    runs = [make_run(a, mixup=m, seed=i) for i, (m, a) in enumerate(draws)]
    summaries = compare(runs).summaries
    settings = list(dict.fromkeys(m for m, _ in draws))
    assert len(summaries) == len(settings)
    for setting, summary in zip(settings, summaries, strict=True):
        members = [(i, a) for i, (m, a) in enumerate(draws) if m == setting]
        values = np.array([a for _, a in members])
        assert summary.seeds == [i for i, _ in members]
        assert summary.final.mean == pytest.approx(values.mean(), abs=1e-12)
        if len(values) == 1:
            assert summary.final.std is None
        else:
            assert summary.final.std == pytest.approx(values.std(ddof=1), abs=1e-12)


def test_best_is_the_highest_and_final_the_last(write_run):
    folder = write_run("run", (0.2, 0.9, 0.8), losses=(3.0, 1.0, 1.5))
    (summary,) = compare([read_run(folder)]).summaries
    assert summary.best == Spread(0.9, None, 1)
    assert summary.final == Spread(0.8, None, 1)
    assert summary.final_error.mean == pytest.approx(20.0)
    assert summary.final_loss == Spread(1.5, None, 1)
    assert summary.epochs == [3]
    assert summary.time == Spread(4.5, None, 1)


def test_nan_is_never_the_best_and_is_kept_as_final(write_run):
    folder = write_run("run", (0.2, 0.4, math.nan), losses=(1.0, math.nan, math.nan))
    (summary,) = compare([read_run(folder)]).summaries
    assert summary.best.mean == 0.4
    assert math.isnan(summary.final.mean)
    assert math.isnan(summary.final_loss.mean)


def test_what_a_log_does_not_tell_is_none():
    (summary,) = compare([make_run(0.5)]).summaries
    assert summary.final_loss is None
    assert summary.time is None


def test_difference_is_welchs_test_against_the_group_without_mixing():
    manifold = [0.95, 0.93, 0.96, 0.97]
    none = [0.90, 0.94, 0.89]
    runs = [make_run(a, mixup="manifold", seed=i) for i, a in enumerate(manifold)]
    runs += [make_run(a, mixup="none", seed=i) for i, a in enumerate(none)]
    comparison = compare(runs)
    assert comparison.baseline == "mixup=none"
    (difference,) = comparison.differences
    assert difference.label == "mixup=manifold"
    assert difference.value == pytest.approx(
        100 * (sum(manifold) / 4 - sum(none) / 3), abs=1e-9
    )
    assert difference.standard_error == pytest.approx(
        100 * (statistics.variance(manifold) / 4 + statistics.variance(none) / 3) ** 0.5
    )
    reference = stats.ttest_ind(manifold, none, equal_var=False)
    assert difference.p_value == pytest.approx(reference.pvalue)
    assert difference.test == "Welch's t-test"


def test_runs_of_the_same_seeds_are_paired():
    manifold = {2: 0.95, 0: 0.93, 1: 0.96}
    none = {0: 0.90, 1: 0.94, 2: 0.91}
    runs = [make_run(a, mixup="manifold", seed=s) for s, a in manifold.items()]
    runs += [make_run(a, mixup="none", seed=s) for s, a in none.items()]
    (difference,) = compare(runs).differences
    reference = stats.ttest_rel(*([g[s] for s in range(3)] for g in (manifold, none)))
    assert difference.test == "paired t-test"
    assert difference.p_value == pytest.approx(reference.pvalue)
    assert difference.standard_error == pytest.approx(
        difference.value / reference.statistic
    )


def test_a_repeated_seed_gets_no_standard_error_and_no_test():
    runs = [make_run(a, mixup="manifold", seed=0) for a in (0.95, 0.93)]
    runs += [make_run(a, mixup="none", seed=s) for s, a in enumerate((0.9, 0.94))]
    (difference,) = compare(runs).differences
    assert difference.value == pytest.approx(2)
    assert difference.standard_error is difference.p_value is None


def test_alpha_zero_counts_as_no_mixing():
    runs = [make_run(0.5, mixup="manifold", alpha=a) for a in (0.2, 0.0)]
    assert compare(runs).baseline == "alpha=0.0"


def test_the_first_group_is_the_baseline_when_all_mix():
    runs = [make_run(0.5, mixup="manifold", alpha=a) for a in (0.2, 1.0, 2.0)]
    comparison = compare(runs)
    assert comparison.baseline == "alpha=0.2"
    assert [d.label for d in comparison.differences] == ["alpha=1.0", "alpha=2.0"]


def test_the_plainest_group_is_the_baseline_wherever_it_stands():
    runs = [make_run(0.5, alpha=0.2, label_noise=noise) for noise in (0.4, 0.0)]
    assert compare(runs).baseline == "label_noise=0.0"
    runs = [make_run(0.5, mixup="none", flip=flip) for flip in (True, False)]
    assert compare([*runs, make_run(0.5, mixup="manifold")]).baseline.endswith("none")


def test_each_setting_is_compared_with_the_like_one_without_mixing():
    runs = [
        make_run(accuracy, mixup=mixup, label_noise=noise)
        for mixup, noise, accuracy in [
            ("none", 0.0, 0.9),
            ("manifold", 0.0, 0.92),
            ("none", 0.4, 0.5),
            ("manifold", 0.4, 0.6),
            ("manifold", 0.6, 0.3),
        ]
    ]
    comparison = compare(runs)
    labels = [summary.label for summary in comparison.summaries]
    assert [
        (labels.index(d.label), labels.index(d.baseline), round(d.value, 6))
        for d in comparison.differences
    ] == [(1, 0, 2), (2, 0, -40), (3, 2, 10), (4, 0, -60)]
    (flaw,) = comparison.flaws
    assert flaw.count("label_noise)") == 2
    text = FORMATS["text"](comparison)
    assert "Differences of the final accuracy, in percentage points" in text
    assert f"  {labels[3]} − {labels[2]}  " in text
    content = json.loads(FORMATS["json"](comparison))
    assert [s["baseline"] for s in content["settings"]] == [
        labels[i] if i is not None else None for i in (None, 0, 0, 2, 0)
    ]


def test_a_single_run_has_no_standard_error_and_no_test():
    runs = [make_run(a, lr=0.1, seed=a) for a in (0.5, 0.6)]
    (difference,) = compare([*runs, make_run(0.7, lr=0.2)]).differences
    assert difference.value == pytest.approx(15.0)
    assert difference.standard_error is None
    assert difference.p_value is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("last", "error"), [(0.9, 0.0), (math.nan, math.nan)])
def test_no_test_without_spread(last, error):
    runs = [make_run(0.8, lr=0.1, seed=s) for s in range(3)]
    finals = enumerate((0.9, 0.9, last))
    runs += [make_run(a, lr=0.2, seed=s) for s, a in finals]
    (difference,) = compare(runs).differences
    assert difference.p_value is None
    assert difference.standard_error == pytest.approx(error, nan_ok=True)


def test_rounding_is_no_spread():
    # Each seed gains one image of 355; the differences differ by rounding alone.
    runs = [
        make_run((n + gain) / 355, mixup=mixup, seed=seed)
        for seed, n in enumerate((83, 97))
        for mixup, gain in (("none", 0), ("manifold", 1))
    ]
    (difference,) = compare(runs).differences
    assert difference.value == pytest.approx(100 / 355)
    assert (difference.standard_error, difference.p_value) == (0, None)
