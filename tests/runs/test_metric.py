from pathlib import Path

import pytest

from chainer_mmix.runs.compare import compare_groups
from chainer_mmix.runs.files import RunError
from chainer_mmix.runs.groups import group_runs
from chainer_mmix.runs.metric import choose_metric
from chainer_mmix.runs.run import Run
from chainer_mmix.runs.table import FORMATS


def make_run(name="run", **values):
    log = [
        {"epoch": i, "iteration": 10 * i, "main/loss": 1.0, "lr": 0.1}
        | {key.replace("__", "/"): value[i - 1] for key, value in values.items()}
        for i in (1, 2)
    ]
    return Run(Path(name), log, {})


def make(*keys):
    return make_run(**{key: (0.5, 0.25) for key in keys})


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        (["validation/main/accuracy", "validation/main/loss"], 0),
        (["val/main/loss", "val/main/accuracy"], 1),
        (["test/main/accuracy"], 0),
        (["validation_1/main/accuracy", "validation_1/main/loss"], 0),
        (["validation_1/main/accuracy", "validation/main/accuracy"], 1),
        (["test/main/accuracy", "val/main/accuracy"], 1),
        (["train/main/accuracy", "test/main/accuracy"], 1),
        (["mnist/main/accuracy", "main/accuracy"], 0),
        (["validation/main/miou", "validation/main/pixel_accuracy"], 0),
        (["validation/main/pixel_accuracy", "validation/main/loss"], 0),
        (["validation/main/map", "validation/main/ap/cat"], 0),
        (["validation/main/loss", "main/accuracy"], 0),
        (["validation/main/psnr", "validation/main/loss"], 0),
        (["validation/main/sharpness", "validation/main/loss"], 1),
        (["validation/main/sharpness"], 0),
        (["validation/main/rmse", "validation/main/loss"], 0),
        (["validation/main/loss", "validation/main/ece"], 0),
        (["validation/main/fgsm_accuracy/0.1", "validation/main/loss"], 1),
        (["validation/gen/loss", "gen/loss"], 0),
        (["val_loss", "val_acc"], 1),
        (["val/accuracy", "accuracy"], 0),
        (["test_ood/main/accuracy", "mixup/loss/0"], 0),
    ],
)
def test_the_best_guess(keys, chosen):
    assert choose_metric([make(*keys)]).key == keys[chosen]


@pytest.mark.parametrize("wanted", [None, "main/accuracy", "accuracy"])
def test_what_is_measured_in_training_is_a_flaw(wanted):
    run = make("main/accuracy", "mixup/loss/0")
    comparison = compare_groups(group_runs([run]), (), choose_metric([run], wanted))
    assert comparison.metric.key == "main/accuracy"
    assert comparison.metric.loss_key(run) == "main/loss"
    assert "main/accuracy is measured in training" in comparison.flaws[0]


def test_a_log_without_a_number_to_compare_is_refused():
    run = Run(Path("run"), [{"epoch": 1, "lr": 0.1, "note": "hello"}], {})
    with pytest.raises(RunError, match=r"run/log has no number to compare, only epoch"):
        choose_metric([run])


def test_the_losses_that_belong_to_a_metric():
    keys = ("classifier/loss", "validation/classifier/loss", "val_loss", "loss")
    run = make(*keys, "validation/classifier/accuracy", "val_acc", "test/main/x/1")
    for key, loss, training in (
        ("validation/classifier/accuracy", keys[1], keys[0]),
        ("val_acc", "val_loss", "loss"),
        ("test/main/x/1", "test/main/loss", "main/loss"),
    ):
        metric = choose_metric([run], key)
        assert metric.loss_key(run) == loss
        assert metric.training_loss_key(run) == training


@pytest.mark.parametrize(
    ("wanted", "key"),
    [
        ("miou", "val/main/miou"),
        ("loss", "val/main/loss"),
        ("val/main/accuracy", "val/main/accuracy"),
        ("main/loss", "main/loss"),
        ("class_accuracy/cat", "val/main/class_accuracy/cat"),
        ("cat", "val/main/class_accuracy/cat"),
    ],
)
def test_a_metric_by_its_key_or_the_end_of_it(wanted, key):
    keys = ("loss", "accuracy", "miou", "class_accuracy/cat")
    run = make(*(f"val/main/{name}" for name in keys))
    assert choose_metric([run], wanted).key == key
    with pytest.raises(RunError, match="has no metric 'f1', only epoch"):
        choose_metric([run], "f1")


@pytest.mark.parametrize(
    ("name", "lower"),
    [
        ("accuracy", False),
        ("miou", False),
        ("psnr", False),
        ("loss", True),
        ("RMSE", True),
        ("top5_error", True),
        ("gen/loss", True),
        ("mean_absolute_error", True),
        ("top1_error", True),
        ("f1_loss", True),
        ("brier_score", True),
        ("cross_entropy", True),
        ("distance_accuracy", False),
        ("error/accuracy", False),
        ("ap/cat", False),
        ("loss2", True),
        ("error1/cat", True),
        ("acc5", False),
        ("map50", False),
    ],
)
def test_whether_less_is_better(name, lower):
    key = f"validation/main/{name}"
    run = make_run(**{key: (3.0, 5.0)})
    for wanted, is_lower in ((None, lower), (True, True), (False, False)):
        metric = choose_metric([run], key, wanted)
        assert metric.lower_is_better == is_lower
        assert metric.flaws == ()
        (summary,) = compare_groups(group_runs([run]), (), metric).summaries
        assert summary.best.mean == (3.0 if is_lower else 5.0)
        assert summary.final.mean == 5.0
        assert summary.final_error is None  # 5 is no share


def test_a_name_that_does_not_say_it_is_a_flaw():
    run = make("validation/main/sharpness")
    (flaw,) = compare_groups(group_runs([run])).flaws
    assert "sharpness does not say whether more is better" in flaw
    for lower in (True, False):
        metric = choose_metric([run], None, lower)
        assert metric.flaws == ()


def test_runs_that_log_under_different_keys_are_compared_with_a_warning():
    a = make_run("a", **{"val/main/accuracy": (0.5, 0.75), "val/main/loss": (2, 1)})
    b = make_run("b", **{"test/main/accuracy": (0.5, 0.5), "test/main/loss": (2, 3)})
    comparison = compare_groups(group_runs([a, b]))
    assert [s.final.mean for s in comparison.summaries] == [0.75, 0.5]
    assert [s.final_loss.mean for s in comparison.summaries] == [1, 3]
    assert comparison.flaws == [
        "accuracy has several keys, which may mean other data: val/main/accuracy (a), "
        "test/main/accuracy (b)"
    ]
    text = FORMATS["text"](comparison)
    assert "are from test/main/accuracy and val/main/accuracy in the logs;" in text
    # A key that both have goes first.
    both = make_run(
        "c", **{"val/main/accuracy": (0, 0), "test/main/accuracy": (0.1, 0.2)}
    )
    metric = choose_metric([both, b])
    assert set(metric.keys.values()) == {"test/main/accuracy"}
    assert metric.flaws == ()


@pytest.mark.parametrize(
    ("keys", "source", "title"),
    [
        (("validation/main/loss", "main/loss"), "main/loss and validation", "Loss"),
        (("main/loss", "main/loss"), "main/loss in the log;", "Loss"),
        (("FID", "FID"), "FID in the log;", "FID"),
        (("val/main/loss",) * 2, "val/main/loss in the log;", "Validation loss"),
        (("validation/main/loss",) * 2, "the validation data;", "Validation loss"),
    ],
)
def test_what_no_evaluator_measured_is_not_called_validation(keys, source, title):
    runs = [make_run(f"run{i}", **{key: (0.5, 0.25)}) for i, key in enumerate(keys, 1)]
    comparison = compare_groups(group_runs(runs))
    assert f"All numbers are from {source}" in FORMATS["text"](comparison)
    assert comparison.metric.title == title


def test_runs_without_a_metric_in_common_are_refused():
    runs = [make("validation/main/accuracy"), make("validation/main/psnr")]
    with pytest.raises(RunError, match=r"no metric in common .*accuracy.*psnr"):
        choose_metric(runs)


def test_the_table_says_what_it_compares():
    runs = [
        make_run(n, **{"val/main/rmse": (0.5, x), "val/main/loss": (0.5, x)})
        for n, x in (("a", 0.25), ("b", 0.125))
    ]
    text = FORMATS["text"](compare_groups(group_runs(runs)))
    heading, first, second, *_ = text.splitlines()
    assert "best rmse  final rmse  final loss  epochs" in heading
    assert "error (%)" not in heading and "0.2500" in first and "0.1250" in second
    assert "All numbers are from val/main/rmse in the log" in text
    assert "best: the lowest of all epochs" in text
    assert "Final rmse compared with a, where less is better" in text
    assert "  b  -0.1250" in text
    loss = choose_metric(runs, "val/main/loss")
    heading = FORMATS["csv"](compare_groups(group_runs(runs), (), loss)).split("\n")[0]
    assert heading.startswith("setting,runs,seeds,epochs,best_loss_mean")
    assert heading.count("final_loss_mean") == 1
    assert "difference,standard_error,p_value" in heading


def test_an_accuracy_in_percent_is_not_taken_for_a_share():
    run = make_run(**{"validation/main/accuracy": (90.0, 95.0)})
    assert not choose_metric([run]).is_share
    assert choose_metric([make("validation/main/accuracy")]).is_share


@pytest.mark.parametrize(
    ("name", "title"),
    [("accuracy", "Accuracy on the test set"), ("meanIoU", "MeanIoU on the test set")],
)
def test_a_title_keeps_the_letters_of_a_name(name, title):
    log = make_run(**{f"validation/main/{name}": (0.5, 0.25)}).log
    run = Run(Path("run"), log, {"data": {"held_out": "test"}})
    assert choose_metric([run], name).title == title


def test_percents_and_shares_are_a_flaw():
    key = "validation/main/accuracy"
    a, b = make_run("a", **{key: (0.5, 0.75)}), make_run("b", **{key: (60.0, 80.0)})
    (flaw,) = compare_groups(group_runs([a, b])).flaws
    assert "accuracy is beyond [0, 1] in b, as in percent" in flaw
    for runs in ([a], [b], [a, make_run("c", **{key: (0.5, float("nan"))})]):
        assert choose_metric(runs).flaws == ()
