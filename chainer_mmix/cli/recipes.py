"""Published settings by name, ``--recipe``; docs/recipes.md shows them in a table."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainer_mmix.cli import argument_types as types
from chainer_mmix.cli.options import MAIN, MIXING, OPTIONS, options_with
from chainer_mmix.lookup import lookup

# What goes with another option: if that is given, a recipe does not set these.
_GOES_WITH = {
    "model": ("published", "stem", "stem_stride", "downsample_fb", "layer_mix"),
    "optimizer": ("lr", "momentum", "nesterov"),
    "mixup": ("layer_mix",),
    "dataset": ("size",),
}


@dataclass(frozen=True)
class Recipe:
    """A published setting.

    Attributes:
        settings (mapping): The values of options that it sets.
        source (str): Where it is from.
    """

    settings: Mapping[str, Any]
    source: str


def _paper(dataset: str, model: str) -> Recipe:
    is_wide = model == "wideresnet28_10"
    settings: dict[str, Any] = {
        "dataset": dataset,
        "model": model,
        "published": True,
        "standardise": "channel",
        "pad_crop": 2,
        "flip": True,
        "mixup": "manifold",
        "alpha": 2.0,
        "layer_mix": [0, 1, 2],
        "loss": "bce",
        "epoch": 400 if is_wide else 1200,
        "lr_drop": [200, 300] if is_wide else [400, 800],
        "batchsize": 100,
        "optimizer": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
    }
    if dataset == "svhn":
        settings |= {"standardise": "half", "flip": False}
    if dataset == "tiny-imagenet":
        settings |= {"standardise": "half", "pad_crop": 4, "stem_stride": 2}
        settings |= {"alpha": 0.2, "epoch": 2000, "lr_drop": [1000, 1500]}
    return Recipe(settings, "arXiv 1806.05236, vikasverma1077/manifold_mixup")


RECIPES = {
    **{
        f"paper-{dataset}-{model}": _paper(dataset, model)
        for dataset in ("cifar10", "cifar100", "svhn")
        for model in ("preactresnet18", "preactresnet34", "wideresnet28_10")
    },
    "paper-tiny-imagenet-preactresnet18": _paper("tiny-imagenet", "preactresnet18"),
    "chainer-cifar10-resnet50": Recipe(
        {
            "dataset": "cifar10",
            "model": "resnet50",
            "stem": "imagenet",
            "flip": True,
            "flip_vertical": True,
            "quarter_turn": True,
            "mixup": "manifold",
            "alpha": 0.2,
            "layer_mix": [0, 1, 2, 3, 4, 5],
            "loss": "ce",
            "epoch": 300,
            "batchsize": 256,
            "optimizer": "adam",
            "lr": 1e-3,
        },
        "HotoNagi/Chainer-Manifold_MixUp",
    ),
    "keras-notebook": Recipe(
        {
            "dataset": "cifar10",
            "model": "elucnn",
            "standardise": "all",
            "rotate": 15.0,
            "width_shift": 0.1,
            "height_shift": 0.1,
            "flip": True,
            "mixup": "manifold",
            "alpha": 1.0,
            "layer_mix": [1],
            "loss": "ce",
            "epoch": 10,
            "batchsize": 64,
            "optimizer": "rmsprop",
            "lr": 1e-3,
        },
        "xapharius/mlscripts, Manifold Mixup.ipynb",
    ),
    "keras-folder": Recipe(
        {
            "dataset": "folder:data",
            "size": 150,
            "validation_split": 0.3,
            "model": "resnet50",
            "rotate": 5.0,
            "width_shift": 0.05,
            "shear": 0.05,
            "brightness": [1.0, 1.3],
            "flip": True,
            "mixup": "input",
            "alpha": 0.2,
            "per": "sample",
            "loss": "bce",
            "epoch": 10,
            "batchsize": 5,
            "optimizer": "rmsprop",
            "lr": 2e-5,
        },
        "Tony607/keras_mixup_generator",
    ),
}


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Parses a command line; what it does not say is as its recipe says.

    Args:
        parser (argparse.ArgumentParser): The parser.
        words (sequence of str): The command line.

    Raises:
        ValueError: If there is no such recipe.
    """
    args = parser.parse_args(words)
    if args.recipe in (None, "list"):
        return args
    settings = settings_of(args.recipe)
    given = given_by(parser, words)
    left = {
        other
        for name, others in _GOES_WITH.items()
        if given.get(name, settings[name]) != settings[name]
        for other in others
    }
    if given.get("mixup") == "none":
        left |= {o.name for o in options_with(MIXING) if MAIN not in o.tags}
    if given.get("cosine"):
        left.add("lr_drop")
    elif "lr_drop" in settings:
        share = given.get("epoch", settings["epoch"]) / settings["epoch"]
        drops = [int(drop * share) for drop in settings["lr_drop"]]
        settings["lr_drop"] = [drop for drop in drops if drop]
    for name, value in settings.items():
        if name not in given and name not in left:
            setattr(args, name, value)
    return args


def settings_of(name: str) -> dict[str, Any]:
    """Returns the values that a recipe sets, as the parser makes them.

    Raises:
        ValueError: If there is no such recipe.
    """
    settings = copy.deepcopy(dict(lookup(RECIPES, name, "recipe").settings))
    settings["dataset"] = types.dataset(settings["dataset"])
    return settings


def given_by(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> Mapping[str, Any]:
    """Returns the arguments that a command line gives, at their defaults or not."""
    nothing = argparse.Namespace(**dict.fromkeys(OPTIONS))
    args = vars(parser.parse_args(words, nothing))
    return {name: value for name, value in args.items() if value is not None}


def table() -> str:
    """Lists all recipes with their options, as one types them."""
    lines = []
    for name, recipe in RECIPES.items():
        lines.append(f"{name} ({recipe.source})")
        lines.append(f"  {words_of(recipe.settings)}")
    return "\n".join(lines)


def words_of(settings: Mapping[str, Any]) -> str:
    """Writes settings as one types them; switches that are off go without saying."""
    words = []
    for name, value in settings.items():
        if value is not False:
            values = value if isinstance(value, list) else [value]
            words.append(OPTIONS[name].flag)
            words += [
                f"{v:g}" if isinstance(v, float) else str(v)
                for v in values
                if v is not True
            ]
    return " ".join(words)
