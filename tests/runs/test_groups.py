import json
import math

from chainer_mmix.runs.compare import compare_groups
from chainer_mmix.runs.groups import differing_arguments, find_flaws, group_runs
from chainer_mmix.runs.metric import choose_metric
from chainer_mmix.runs.run import read_run
from chainer_mmix.runs.table import format_json


def edit_record(folder, **changes):
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def group(folders):
    return group_runs([read_run(folder) for folder in folders])


def grouped(folders):
    groups = group(folders)
    return groups, choose_metric([run for g in groups for run in g.runs])


def test_settings_that_differ_in_more_than_mixing_are_flawed(write_run):
    runs = [
        write_run("a", mixup="none", alpha=0.0, train_size=100),
        write_run("b", mixup="manifold", alpha=0.2, train_size=100),
        write_run("c", mixup="manifold", alpha=0.2, train_size=200),
    ]
    groups = group(runs)
    assert [differing_arguments(g, groups[0]) for g in groups] == [
        [],
        [],
        ["train_size"],
    ]
    (flaw,) = compare_groups(groups).flaws
    assert "not one of mixing alone" in flaw and "train_size" in flaw
    assert compare_groups(groups[:2]).flaws == []


def test_what_most_settings_have_in_common_goes_without_saying(write_run):
    options = ({}, {"per": "sample"}, {"fold": True}, {"per": "pair", "alpha": 2.0})
    runs = [
        write_run(f"run{i}", **{"alpha": 1.0, "per": "batch", "fold": False, **option})
        for i, option in enumerate(options)
    ]
    assert [g.label for g in group(runs)] == [
        "alpha=1.0 per=batch",  # half of them are not most
        "alpha=1.0 per=sample",
        "alpha=1.0 per=batch fold",
        "alpha=2.0 per=pair",
    ]


def test_what_one_run_has_none_of_is_told(write_run):
    runs = [
        write_run("a", mixup="manifold", alpha=1.0, clean_weight=0.5),
        write_run("b", mixup="manifold", alpha=1.0),
        write_run("c", mixup="none", flip=True),
    ]
    how = {"mixing": ["mixup", "alpha", "clean_weight"], "main": ["mixup", "alpha"]}
    for run in runs:
        values = json.loads((run / "run.json").read_text())["arguments"]
        del values["out"]
        mixes = values["mixup"] != "none"
        edit_record(run, setting={"values": values, "mixes": mixes, **how})
    assert [g.label for g in group(runs[:2])] == [
        "clean_weight=0.5",
        "clean_weight=unset",
    ]
    assert [g.label for g in group(runs)] == [
        "mixup=manifold alpha=1.0 clean_weight=0.5",
        "mixup=manifold alpha=1.0 clean_weight=unset",
        "mixup=none flip",
    ]
    assert differing_arguments(*group(runs[:2])) == []
    assert differing_arguments(*group(runs[1:])) == ["flip"]


def test_the_usual_setting_is_named_by_its_essentials(write_run):
    options = ({}, {"per": "sample"}, {"lr_drop": [3]})
    runs = [
        write_run(f"run{i}", **{"alpha": 1.0, "per": "batch", "lr_drop": [], **option})
        for i, option in enumerate(options)
    ]
    assert [g.label for g in group(runs)] == [
        "model=cnn alpha=1.0",
        "per=sample",
        "lr_drop=3",
    ]


def test_seeds_of_one_setting_are_grouped_and_labels_name_the_difference(write_run):
    runs = [
        write_run("a", mixup="none", alpha=0.2, layer_mix=None, seed=0, gpu=-1),
        write_run("b", mixup="manifold", alpha=0.2, layer_mix=None, seed=0),
        write_run("c", mixup="none", alpha=0.2, layer_mix=None, seed=1, gpu=-1),
        write_run("d", mixup="manifold", alpha=0.2, layer_mix=[0, 1], seed=0),
    ]
    edit_record(runs[2], device="@cupy:0", duration=3.0)
    groups = group(runs)
    assert [(g.label, [r.path.name for r in g.runs]) for g in groups] == [
        ("mixup=none", ["a", "c"]),
        ("mixup=manifold alpha=0.2 layer_mix=unset", ["b"]),
        ("mixup=manifold alpha=0.2 layer_mix=0,1", ["d"]),
    ]
    assert [g.mixes for g in groups] == [False, True, True]
    assert [run.seed for run in groups[0].runs] == [0, 1]


def test_a_run_without_mixing_does_not_make_the_others_say_how_they_mix(write_run):
    how = {"alpha": 2.0, "per": "batch", "fold": False}
    runs = []
    for mixup, values in (("manifold", how), ("none", {}), ("manifold", {"alpha": 1})):
        runs.append(write_run(f"run{len(runs)}"))
        setting = {
            "values": {"mixup": mixup, **(values and how | values)},
            "mixing": ["mixup", *how],
            "mixes": mixup != "none",
            "main": ["mixup", "alpha"],
        }
        edit_record(runs[-1], setting=setting)
    labels = ["mixup=manifold alpha=2.0", "mixup=none", "mixup=manifold alpha=1"]
    assert [g.label for g in group(runs[:2])] == labels[:2]
    assert [g.label for g in group(runs)] == labels


def test_layers_that_follow_from_the_kind_of_mixing_are_not_named(write_run):
    runs = [
        write_run("a", mixup="none", alpha=0.2, layer_mix=[0, 1]),
        write_run("b", mixup="input", alpha=0.2, layer_mix=[0]),
        write_run("c", mixup="manifold", alpha=0.2, layer_mix=[0, 1]),
    ]
    assert [g.label for g in group(runs)] == [
        "mixup=none",
        "mixup=input alpha=0.2",
        "mixup=manifold alpha=0.2",
    ]


def test_alpha_of_runs_without_mixing_does_not_split_their_group(write_run):
    runs = [
        write_run("a", mixup="none", alpha=0.2),
        write_run("b", mixup="none", alpha=1.0),
    ]
    assert len(group(runs)) == 1


def test_a_single_group_is_named_by_its_essentials(write_run):
    runs = [write_run(name, mixup="none", lr=0.1, seed=1) for name in "ab"]
    assert [g.label for g in group(runs)] == ["model=cnn mixup=none"]


def test_runs_without_record_go_by_folder_and_stay_apart(write_run):
    runs = [write_run(n, record=False) for n in ("x/result", "y/result", "other")]
    parent = runs[2].parent.name
    assert [g.label for g in group(runs)] == [
        "x/result",
        "y/result",
        f"{parent}/other",
    ]
    assert [g.label for g in group(runs[1:])] == ["result", "other"]
    assert [g.mixes for g in group(runs)] == [None] * 3


def test_sound_runs_have_no_flaws(write_run):
    runs = [write_run(str(s), epoch=2, seed=s) for s in range(3)]
    for run in runs:
        edit_record(run, status="finished")
    assert find_flaws(*grouped(runs)) == []


def test_flaws_are_one_line_each(write_run):
    runs = [
        write_run("short", epoch=3, seed=0),
        write_run("failed", epoch=3, seed=0),
        write_run("long", (0.1, 0.2, 0.3), losses=(1, math.nan, 1), epoch=3, seed=1),
    ]
    edit_record(runs[1], status="failed")
    unfinished, epochs, diverged, seeds = find_flaws(*grouped(runs))
    assert unfinished == f"not finished: {runs[0]} (2 of 3 epochs), {runs[1]} (failed)"
    assert epochs == (
        f"the runs differ in epochs done: 2 ({runs[0]}, {runs[1]}), 3 ({runs[2]})"
    )
    assert diverged == f"NaN or infinite values in the log: {runs[2]}"
    assert "has seed 0" in seeds


def test_whole_numbers_are_one_setting_however_they_are_written(write_run):
    runs = [
        write_run(f"run{i}", mixup="input", alpha=alpha, layer_mix=[layer], seed=i)
        for i, (alpha, layer) in enumerate([(1, 0), (1.0, 0.0), (0.5, 0)])
    ]
    assert [len(g.runs) for g in group(runs)] == [2, 1]


def test_settings_of_one_label_are_told_by_their_folders(write_run):
    runs = [
        write_run(f"run{i}", [accuracy], mixup=mixup, alpha=alpha, seed=0)
        for i, (mixup, alpha, accuracy) in enumerate(
            [("none", 1, 0.5), ("input", 1, 0.75), ("input", "1", 0.875)]
        )
    ]
    groups = group(runs)
    assert [g.label.partition(" (")[2] for g in groups] == ["", "run1)", "run2)"]
    content = json.loads(format_json(compare_groups(groups)))
    differences = [row["difference_points"] for row in content["settings"]]
    assert differences == [None, 25, 37.5]
