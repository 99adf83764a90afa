"""Defaults and checks of the training command's arguments, and names made of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

import chainer
import numpy as np

from chainer_mmix import datasets, training
from chainer_mmix.analysis.predictions import accuracy_functions
from chainer_mmix.cli import options, recipes
from chainer_mmix.lookup import lookup
from chainer_mmix.mixing import MixupDraw
from chainer_mmix.mixing.draw import using_draw
from chainer_mmix.mixing.regions import NAMES
from chainer_mmix.training.optimizers import NO_MOMENTUM


def fill_in(args: argparse.Namespace, model_class: Any) -> None:
    """Fills in the defaults that depend on other arguments, and checks them."""
    kind = datasets.kind_of(args.dataset)
    if args.epoch is None:
        args.epoch = options.EPOCH[kind]
    if args.batchsize is None:
        args.batchsize = options.BATCHSIZE[kind]
    if kind == "folder:PATH" and args.size is None:
        args.size = options.FOLDER_SIZE
    if args.lr is None:
        args.lr = training.OPTIMIZERS[args.optimizer]
    if args.mixup == "input" and args.layer_mix not in (None, [0]):
        raise ValueError("--layer-mix chooses layers for --mixup manifold, not input")
    if args.mixup == "none":
        for option in options.options_with(options.MIXING):
            is_given = getattr(args, option.name) != option.default
            if is_given and options.MAIN not in option.tags:
                raise ValueError(
                    f"{option.flag} is for --mixup manifold or input, not none"
                )
        args.alpha = 0.0
    elif args.mixup == "input":
        args.layer_mix = [0]
    elif args.layer_mix is None:
        args.layer_mix = list(model_class.default_layer_mix)
    _check_mixing(args, model_class)
    if args.workers and args.data_on_device:
        raise ValueError(
            "--workers is for images that are read one by one, not for "
            "--data-on-device: leave one of them out"
        )
    if args.loss_scale is not None and args.dtype == "float32":
        raise ValueError("--loss-scale is for --dtype float16 or mixed16, not float32")
    if args.dtype == "float16" and args.optimizer in NO_MOMENTUM:
        raise ValueError(
            f"--dtype float16 is not for --optimizer {args.optimizer}, since squares "
            "of gradients vanish in it: use --dtype mixed16, or momentum_sgd"
        )
    if args.optimizer in NO_MOMENTUM and args.momentum != 0.9:
        raise ValueError(
            f"--momentum is for --optimizer sgd, momentum_sgd and nesterov, not "
            f"{args.optimizer}"
        )
    if args.nesterov and args.optimizer != "sgd":
        raise ValueError(f"--nesterov is for --optimizer sgd, not {args.optimizer}")
    if args.nesterov and not args.momentum:
        raise ValueError("--nesterov needs a --momentum above 0, such as 0.9")
    check_rate(args)
    if args.out is None:
        args.out = default_out(args, model_class)


def _check_mixing(args: argparse.Namespace, model_class: Any) -> None:
    """Checks the arguments that say how to mix.

    Raises:
        ValueError: If one is out of range or changes nothing.
    """
    points = model_class.mixup_layers
    if missing := [k for k in args.layer_mix or () if k not in points]:
        raise ValueError(
            f"--layer-mix {missing[0]} is no mixing point of {args.model}: choose from "
            f"{', '.join(map(str, points))}"
        )
    pastes = options.pasting(args)
    # A run that goes on keeps what it began with.
    if args.clean_weight in (0, 1) and not args.resume:
        raise ValueError(
            f"--clean-weight must be above 0 and below 1, not {args.clean_weight:g}: "
            "leave it out, or train with --mixup none"
        )
    if not (options.mixes(args) or args.resume):
        for name in ("clean_weight", "remix_kappa", "fixed_lam", "mixup_off_epoch"):
            if getattr(args, name) is not None:
                raise ValueError(
                    f"{options.OPTIONS[name].flag} changes nothing where nothing is "
                    "mixed: choose an --alpha and a --mixup-prob above 0, or leave it "
                    "out"
                )
    if args.switch_prob != 0.5 and not ((args.alpha or args.alpha_end) and pastes):
        raise ValueError(
            "--switch-prob is for --alpha above 0 and CutMix, FMix or ResizeMix beside "
            "it: add --cutmix-alpha, --cutmix-minmax, --fmix-alpha or "
            "--resizemix-minmax"
        )
    if args.cutmix_alpha and args.cutmix_minmax:
        raise ValueError("--cutmix-minmax is in place of --cutmix-alpha: leave out one")
    if args.remix_tau is not None and args.remix_kappa is None:
        raise ValueError("--remix-tau is for --remix-kappa: add it, or leave it out")
    if args.fixed_lam is not None and args.alpha_end is not None:
        raise ValueError("--alpha-end changes nothing with --fixed-lam: leave out one")
    if args.mixup_off_epoch is not None and args.mixup_off_epoch >= args.epoch:
        raise ValueError(
            f"--mixup-off-epoch {args.mixup_off_epoch} is not before the end, --epoch "
            f"{args.epoch}: leave it out, or choose an earlier one"
        )


def check_rate(args: argparse.Namespace) -> None:
    """Checks that what is to happen to the learning rate happens before the end."""
    late = [drop for drop in args.lr_drop if drop >= args.epoch]
    if late:
        raise ValueError(
            f"--lr-drop {late[0]} never comes, for --epoch is {args.epoch}: choose an "
            "earlier one, or train longer"
        )
    if args.lr_drop and args.cosine:
        raise ValueError("--cosine and --lr-drop both lower the rate: leave out one")
    if args.warmup is not None and args.warmup >= args.epoch:
        raise ValueError(
            f"--warmup {args.warmup} takes all of --epoch {args.epoch}: choose less"
        )
    if args.grad_clip is not None and args.dtype != "float32":
        # Chainer's hook looks at gradients that are still scaled.
        raise ValueError(f"--grad-clip is for --dtype float32, not {args.dtype}")


def default_out(args: argparse.Namespace, model_class: Any) -> str:
    """Names the output folder by what sets one run apart from others."""
    usual: Mapping[str, Any] = {}
    what = {"dataset": datasets.short_name(args.dataset), "model": args.model}
    if args.recipe:
        usual = recipes.settings_of(args.recipe)
        what = {k: v for k, v in what.items() if getattr(args, k) != usual[k]}
        what = {"recipe": args.recipe, **what}
    name = "_".join([*what.values(), args.mixup])
    if args.mixup != "none":
        name += f"_alpha{args.alpha:g}"
    layers = usual.get("layer_mix", list(model_class.default_layer_mix))
    if args.mixup == "manifold" and args.layer_mix != layers:
        name += f"_layer{'-'.join(map(str, args.layer_mix))}"
    name = "_".join([name, *options.changed_words(args, usual)])
    if args.train_size is not None:
        name += f"_n{args.train_size}"
    if args.label_noise:
        name += f"_noise{args.label_noise:g}"
    return os.path.join("result", f"{name}_seed{args.seed}")


def describe(
    args: argparse.Namespace,
    data: Mapping[str, Any],
    ranks: int = 1,
    rate_scale: float = 1.0,
) -> str:
    """Returns the setting in one line."""
    name = datasets.short_name(args.dataset)
    mixing = "no mixing"
    if options.mixes(args):
        layers = " ".join(map(str, args.layer_mix))
        pastes = [NAMES[name.split("_")[0]] for name in options.pasting(args)]
        mixup = f"{args.mixup} mixup with alpha {args.alpha:g}"
        names = [mixup] if args.alpha or args.alpha_end else []
        mixing = f"{' and '.join([*names, *pastes])} at layer {layers}"
    more = recipes.words_of(options.more_settings(args))
    changed = f", {more}" if more else ""
    scaled = ""
    if rate_scale != 1:
        scaled = f" times {rate_scale:g} after {args.warmup} epochs"
    batches = f"{args.batchsize}"
    if ranks > 1:
        batches += f" on each of {ranks} ranks"
    return (
        f"setting: {args.model} on {name} ({data['n_train']} training and "
        f"{data['n_held_out']} {data['held_out']} images), {mixing}{changed}, "
        f"{args.optimizer} with lr {args.lr:g}{scaled}, batches of {batches}, "
        f"{args.epoch} epoch{'' if args.epoch == 1 else 's'}, seed {args.seed}"
    )


def check_keep_best(key: str, classifier: Any) -> None:
    """Checks that the log will have the number of ``--keep-best``, without any data.

    Args:
        key (str): The key. What extensions log, under ``mixup/``, is not looked at.
        classifier (ManifoldMixupClassifier): What is trained.

    Raises:
        ValueError: If the log will not have it.
    """
    names = ["loss", *accuracy_functions(classifier)]
    known = [f"{part}/{name}" for part in ("validation/main", "main") for name in names]
    known += ["main/lam", "lr"]
    if classifier.clean_weight:
        known += [f"main/clean_{name}" for name in names]
    if (validated := f"validation/main/{key}") in known:
        raise ValueError(f"--keep-best {key} names no number: try {validated}")
    if not key.startswith("mixup/"):
        with options.naming("keep_best"):
            lookup(dict.fromkeys(known), key, "number of the log")


def check_pasting(classifier: Any, example: tuple, device, option: str) -> None:
    """Tries it at every point that is drawn from; not every map is large enough.

    Raises:
        ValueError: If one is not, with those that are.
    """
    x, t = training.convert_examples([example] * 2, device)
    method = classifier.policy.pastes[0]

    def error_at(point) -> ValueError | None:
        draw = MixupDraw(point, 0.5, np.arange(2), np.zeros(3), method)
        keywords = {"mixup_hidden": True, "lam": 0.5, "layer_mix": point}
        with using_draw(draw), chainer.using_config("train", False):
            try:
                classifier.predictor(x, t, **keywords)
            except ValueError as e:
                return e
        return None

    for point in classifier.points:
        if (error := error_at(point)) is None:
            continue
        good = [p for p in classifier.predictor.mixup_layers if error_at(p) is None]
        remedy = f"; --layer-mix {' '.join(map(str, good))} will do" if good else ""
        flag = options.OPTIONS[option].flag
        raise ValueError(f"{error} (layer {point}, {flag}){remedy}") from error
