import json
from pathlib import Path

import numpy as np
import pytest

from chainer_mmix.cli import train
from chainer_mmix.cli.arguments import describe, fill_in
from chainer_mmix.cli.options import (
    GROUPS,
    INCIDENTAL,
    MAIN,
    MIXING,
    NAMED,
    OPTIONS,
    SETTING,
    naming,
    setting_of,
)
from chainer_mmix.models import CNN
from chainer_mmix.runs.groups import group_runs
from chainer_mmix.runs.run import Run

# Another value than the default for each option, as one types it.
OTHERS = {
    "recipe": "keras-notebook",
    "standardise": "channel",
    "stem_stride": "2",
    "pad_crop": "2",
    "rotate": "15",
    "width_shift": "0.1",
    "height_shift": "0.1",
    "shear": "5",
    "brightness": ["1", "1.3"],
    "colour_jitter": ["0.1", "0.2", "0.3", "0.4"],
    "cutout": "8",
    "dataset": "cifar10",
    "model": "cnn",
    "data_root": "data",
    "size": "32",
    "validation_split": "0.2",
    "stem": "cifar",
    "pretrained": "weights.npz",
    "train_size": "100",
    "label_noise": "0.5",
    "mixup": "input",
    "alpha": "1",
    "layer_mix": "1",
    "alpha_end": "1",
    "per": "pair",
    "mixup_prob": "0.5",
    "mixup_prob_end": "0.5",
    "mixup_off_epoch": "2",
    "cutmix_alpha": "1",
    "switch_prob": "0.2",
    "fixed_lam": "0.7",
    "cutmix_minmax": ["0.2", "0.8"],
    "fmix_alpha": "1",
    "resizemix_minmax": ["0.1", "0.8"],
    "clean_weight": "0.4",
    "remix_kappa": "3",
    "remix_tau": "0.4",
    "top_k": "3",
    "loss": "bce",
    "label_smoothing": "0.1",
    "epoch": "3",
    "batchsize": "7",
    "optimizer": "momentum_sgd",
    "momentum": "0.8",
    "lr": "0.5",
    "lr_drop": "4",
    "warmup": "1",
    "grad_clip": "5",
    "weight_decay": "0.1",
    "seed": "9",
    "gpu": "0",
    "device": "@numpy",
    "dtype": "mixed16",
    "loss_scale": "8",
    "workers": "2",
    "out": "elsewhere",
    "resume": "snapshot",
    "communicator": "naive",
    "gpus": "0,1",
    "lr_scaling": "linear",
    "rank_timeout": "3",
    "snapshot_every": "30min",
    "keep": "3",
    "keep_best": "validation/main/loss",
    "early_stopping": "4",
}
# Records without a setting are from before these, which are no part of one.
NEWER = (
    *("quiet", "data_root", "workers", "top_k", "recipe"),
    *("snapshot_every", "keep", "keep_best", "early_stopping"),
    *("communicator", "gpus", "common_draw", "sync_bn", "rank_timeout"),
    *("lr_scaling", "warmup", "cosine", "grad_clip", "stem_stride", "standardise"),
    *("pad_crop", "flip", "flip_vertical", "quarter_turn", "rotate", "width_shift"),
    *("height_shift", "shear", "brightness", "colour_jitter", "cutout"),
    *("cutmix_minmax", "fmix_alpha", "resizemix_minmax", "clean_weight"),
    *("remix_kappa", "remix_tau"),
)


def arguments(*words):
    args = train.get_parser().parse_args(words)
    if args.switch_prob != 0.5 and args.mixup != "none":
        args.cutmix_alpha = 1.0  # which it needs
    if args.remix_tau is not None and args.mixup != "none":
        args.remix_kappa = 3.0
    if args.momentum != 0.9 or args.nesterov:
        args.optimizer = "sgd"
    if args.loss_scale is not None:
        args.dtype = "mixed16"
    fill_in(args, CNN)
    return args


def words_of(option):
    if option.default is False:
        return [option.flag]
    return [option.flag, *np.atleast_1d(OTHERS[option.name])]


def run_of(args):
    record = {"arguments": vars(args), "setting": vars(setting_of(args))}
    record = json.loads(json.dumps(record))  # as a file has it
    return Run(Path(str(id(args))), [], record)


def group(*runs):
    return [len(group.runs) for group in group_runs(runs)]


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_what_is_no_setting_is_not_told_apart(option):
    plain, other = run_of(arguments()), run_of(arguments(*words_of(option)))
    assert group(plain, other) == ([2] if INCIDENTAL in option.tags else [1, 1])


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_records_of_older_versions_are_grouped_with_those_of_today(option):
    if option.name in NEWER:
        pytest.skip("they did not have it")
    new = run_of(arguments(*words_of(option)))
    old, plain = (
        Run(Path(), [], {"arguments": {k: v for k, v in a.items() if k not in NEWER}})
        for a in (new.record["arguments"], vars(arguments()))
    )
    assert group(new, old) == [2]
    assert new.setting.mixes == old.setting.mixes
    assert new.setting.title == old.setting.title
    assert group(plain, old) == ([2] if INCIDENTAL in option.tags else [1, 1])


def test_an_error_names_the_options_that_it_is_about():
    both = r"^no \(--alpha, --layer-mix\)$"
    with pytest.raises(ValueError, match=both), naming("alpha", "layer_mix"):
        raise ValueError("no")
    with pytest.raises(ValueError, match=r"^no$"), naming():
        raise ValueError("no")


def test_records_with_a_setting_lack_what_was_new_after_them():
    # Of a run before these options.
    assert set(run_of(arguments()).setting.values) <= {
        *(
            "dataset",
            "model",
            "size",
            "stem",
            "downsample_fb",
            "published",
            "train_size",
        ),
        *("label_noise", "augment", "validation_split", "pretrained", "mixup", "alpha"),
        *("layer_mix", "alpha_end", "per", "fold", "mixup_prob", "mixup_prob_end"),
        *("mixup_off_epoch", "cutmix_alpha", "switch_prob", "fixed_lam", "loss"),
        *("label_smoothing", "batchsize", "optimizer", "momentum", "nesterov", "lr"),
        *("lr_drop", "weight_decay", "dtype", "loss_scale", "skip_corrupt"),
    }


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_without_mixing_its_options_are_refused(option):
    words = ["--mixup", "none", *words_of(option)]
    if MIXING in option.tags and MAIN not in option.tags:
        with pytest.raises(ValueError, match=f"{option.flag} is for --mixup manifold"):
            arguments(*words)
    elif option.name != "mixup":
        assert arguments(*words)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_the_output_folder_is_named_after_what_is_unusual(option):
    if option.name in ("out", "resume"):
        pytest.skip("they name a folder themselves")
    plain, other = (arguments(*words).out for words in ((), words_of(option)))
    named = bool(option.tags & (NAMED | MAIN))
    named |= option.name in ("layer_mix", "train_size", "label_noise", "seed", "recipe")
    assert (plain != other) == named


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_the_line_of_settings_tells_all_that_is_unusual(option):
    data = {"n_train": 1442, "n_held_out": 355, "held_out": "test"}
    args = arguments(*words_of(option))
    plain, line = (describe(a, data) for a in (arguments(), args))
    told = bool(option.tags & (SETTING | MIXING)) or option.name == "seed"
    # How many images there are is said in any case.
    assert (line != plain) == (told and option.name != "train_size")
    if f" {option.flag}" in line:  # as one types it
        value = getattr(args, option.name)
        values = [] if value is True else value if isinstance(value, list) else [value]
        words = [f"{x:g}" if isinstance(x, float) else str(x) for x in values]
        assert " ".join([option.flag, *words]) in line


def test_runs_without_mixing_are_one_setting_whatever_alpha_is():
    runs = [run_of(arguments("--mixup", "none", "--alpha", a)) for a in ("0.2", "1")]
    assert group(*runs) == [2]
    assert [run.setting.mixes for run in runs] == [False, False]
    assert run_of(arguments("--alpha", "0")).setting.mixes is False
    assert run_of(arguments("--alpha", "0", "--alpha-end", "1")).setting.mixes is True


def test_the_parser_is_built_once():
    assert train.get_parser() is train.get_parser()


def test_every_option_stands_once():
    assert len(OPTIONS) == sum(map(len, GROUPS.values()))
    defaults = vars(train.get_parser().parse_args([]))
    assert defaults == {name: option.default for name, option in OPTIONS.items()}
