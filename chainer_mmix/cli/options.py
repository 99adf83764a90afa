"""The options of the training command: one table, which all that depends on it reads.

A new option is one more entry of :data:`GROUPS` and the line that uses it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import chainer.functions as F

from chainer_mmix import datasets, models, training
from chainer_mmix.cli import argument_types as types
from chainer_mmix.mixing import softmax_binary_cross_entropy
from chainer_mmix.runs.record import Setting

# What depends on the dataset: enough for digits in minutes on a CPU; for CIFAR as in
# the original Chainer implementation.
EPOCH = {"digits": 10, "mnist5k": 10, "mnist": 10, "cifar10": 300, "cifar100": 300}
BATCHSIZE = {
    **{"digits": 64, "mnist5k": 64, "mnist": 128},
    **{"cifar10": 256, "cifar100": 256},
}
LOSSES = {"ce": F.softmax_cross_entropy, "bce": softmax_binary_cross_entropy}


@dataclass(frozen=True)
class Option:
    """An option of the training command.

    Attributes:
        name (str): Its name in the arguments: ``layer_mix`` for ``--layer-mix``.
        kind (str): ``"setting"``: what is trained, and how; ``"mixing"``: how it is
            mixed, which ``--mixup none`` refuses; ``"incidental"``: where, and what is
            watched, which is not told apart when runs are compared.
        help (str): What it does.
        type (callable): Makes its value of a word; ``str`` by default.
        default: Its value when it is not given. ``False`` makes it a switch.
        may_change (bool): Whether a resumed run may change it.
        is_main (bool): Whether it is always said what it is.
        is_named (bool): Whether another value than the default is part of the default
            output folder's name.
        is_exclusive (bool): Whether it excludes the others of its group that are.
        more (mapping): Further keywords of ``add_argument``.
    """

    name: str
    kind: Literal["setting", "mixing", "incidental"]
    help: str
    type: Any = str
    default: Any = None
    may_change: bool = False
    is_main: bool = False
    is_named: bool = False
    is_exclusive: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def flag(self) -> str:
        """The option as one types it."""
        return "--" + self.name.replace("_", "-")

    def add_to(self, group: argparse._ActionsContainer) -> None:
        """Adds it to a group of a parser."""
        text = self.help
        if self.default is False:
            help = f"{text} (default: off)"
            group.add_argument(self.flag, action="store_true", help=help)
            return
        if self.default not in (None, []):
            text += f" (default: {str(self.default).removesuffix('.0')})"
        group.add_argument(
            self.flag, type=self.type, default=self.default, help=text, **self.more
        )


def _by_value(table: Mapping[str, Any], separator: str = ", ") -> str:
    names: dict[Any, list[str]] = {}
    for name, value in table.items():
        names.setdefault(value, []).append(name)
    return separator.join(f"{v} for {' and '.join(n)}" for v, n in names.items())


def _points() -> str:
    """Returns the mixing points of all models."""
    points = {}
    for name, model in models.MODELS.items():
        all_points, default = (
            " ".join(map(str, p)) for p in (model.mixup_layers, model.default_layer_mix)
        )
        points[name] = f"{all_points}, by default {default},"
    return _by_value(points, "; ")


def _metavar(name: str, **more: Any) -> dict[str, Any]:
    return {"metavar": name, **more}


def _choices(*names: str) -> dict[str, Any]:
    return {"choices": names}


_SETTING = functools.partial(Option, kind="setting")
_MIXING = functools.partial(Option, kind="mixing")
_INCIDENTAL = functools.partial(Option, kind="incidental", may_change=True)

GROUPS: dict[str, Sequence[Option]] = {
    "what to train": (
        _SETTING(
            "dataset",
            default="digits",
            is_main=True,
            more=_metavar("NAME"),
            help=f"one of {', '.join(datasets.DATASETS)}; digits (1442 training images "
            "of 8x8 pixels) come with scikit-learn, mnist5k (5,000 images of MNIST) "
            "with the extra mnist, the others are downloaded and cached",
        ),
        _SETTING(
            "model",
            default="resnet50",
            is_main=True,
            more=_metavar("NAME"),
            help=f"one of {', '.join(models.MODELS)}",
        ),
        _SETTING(
            "stem",
            default="imagenet",
            is_named=True,
            more=_choices("imagenet", "cifar"),
            help="how resnet18 to resnet152 begin: with a 7x7 convolution of stride 2 "
            "and pooling, or with a 3x3 convolution that keeps the size",
        ),
        _SETTING(
            "downsample_fb",
            default=False,
            is_named=True,
            help="for resnet50, 101 and 152: stride in the 3x3 convolutions, as "
            "weights of ChainerCV want it",
        ),
        _SETTING(
            "pretrained",
            is_named=True,
            more=_metavar("FILE"),
            help="begin with the weights in this npz file, but for the last layer: "
            "ImageNet weights of Chainer (ResNet-50-model.npz) or ChainerCV for "
            "resnet50, 101 and 152, or what a run of the same model saved; the images "
            "stay as they are, RGB in [0, 1], which ImageNet weights have to get used "
            "to; for --dataset cifar10 and cifar100, since the digits are grey",
        ),
        _SETTING(
            "train_size",
            type=types.positive_int,
            more=_metavar("N"),
            help="train on N images only, a random choice in which every class keeps "
            "its share (default: all)",
        ),
        _SETTING(
            "label_noise",
            type=types.share,
            default=0.0,
            more=_metavar("P"),
            help="replace this share of the training labels by random other ones, 0 to "
            "1; test labels stay right",
        ),
        _SETTING(
            "augment",
            default=False,
            help="random crop and rotation by up to 10 degrees, and for CIFAR flips",
        ),
    ),
    "mixing": (
        _MIXING(
            "mixup",
            default="manifold",
            is_main=True,
            more=_choices("manifold", "input", "none"),
            help="mix at a randomly drawn layer, at the input only (layer 0), or not "
            "at all",
        ),
        _MIXING(
            "alpha",
            type=types.not_negative,
            default=0.2,
            is_main=True,
            help="lambda is drawn from Beta(ALPHA, ALPHA); 0 means no mixing; the "
            "paper uses 2 for CIFAR",
        ),
        _MIXING(
            "layer_mix",
            type=int,
            more=_metavar("K", nargs="+"),
            help=f"layers to draw from, 0 being the input: {_points()}",
        ),
        _MIXING(
            "alpha_end",
            type=types.not_negative,
            is_named=True,
            more=_metavar("A"),
            help="shift alpha linearly to A until the last epoch (default: it stays)",
        ),
        _MIXING(
            "per",
            default="batch",
            is_named=True,
            more=_choices("batch", "pair", "sample"),
            help="draw one lambda a minibatch, one a pair of samples that are mixed "
            "with each other, or one a sample",
        ),
        _MIXING(
            "fold",
            default=False,
            is_named=True,
            help="use the larger of lambda and 1 - lambda",
        ),
        _MIXING(
            "mixup_prob",
            type=types.share,
            default=1.0,
            is_named=True,
            more=_metavar("P"),
            help="probability that a minibatch is mixed",
        ),
        _MIXING(
            "mixup_prob_end",
            type=types.share,
            is_named=True,
            more=_metavar("P"),
            help="shift the probability of mixing linearly to P until the last epoch "
            "(default: it stays)",
        ),
        _MIXING(
            "mixup_off_epoch",
            type=types.positive_int,
            is_named=True,
            more=_metavar("E"),
            help="stop mixing after this epoch (default: never)",
        ),
        _MIXING(
            "cutmix_alpha",
            type=types.not_negative,
            default=0.0,
            is_named=True,
            more=_metavar("A"),
            help="CutMix with lambda from Beta(A, A): in place of mixup with --alpha "
            "0, else besides it; 0 means none",
        ),
        _MIXING(
            "switch_prob",
            type=types.share,
            default=0.5,
            is_named=True,
            more=_metavar("P"),
            help="probability of CutMix where there are both",
        ),
    ),
    "optimization": (
        _SETTING(
            "loss",
            default="ce",
            is_named=True,
            more=_choices(*LOSSES),
            help="cross entropy, or binary cross entropy of the softmax as in the "
            "paper's code, whose gradient is smaller, about by the number of classes",
        ),
        _SETTING(
            "label_smoothing",
            type=types.share,
            default=0.0,
            is_named=True,
            more=_metavar("E"),
            help="spread this share of each training label over all classes",
        ),
        _SETTING(
            "epoch",
            type=types.positive_int,
            may_change=True,
            more=_metavar("N"),
            help=f"passes over the training set (default: {_by_value(EPOCH)})",
        ),
        _SETTING(
            "batchsize",
            type=types.positive_int,
            may_change=True,
            more=_metavar("N"),
            help=f"images in a minibatch (default: {_by_value(BATCHSIZE)})",
        ),
        _SETTING(
            "optimizer",
            default="adam",
            more=_choices(*training.OPTIMIZERS),
            help="the last two have momentum 0.9",
        ),
        _SETTING(
            "lr",
            type=types.positive,
            may_change=True,
            help=f"learning rate (default: {_by_value(training.OPTIMIZERS)})",
        ),
        _SETTING(
            "lr_drop",
            type=types.positive_int,
            default=[],
            may_change=True,
            more=_metavar("E", nargs="+"),
            help="divide the learning rate by 10 after these epochs (default: never)",
        ),
        _SETTING(
            "weight_decay",
            type=types.not_negative,
            default=0.0,
            may_change=True,
            more=_metavar("RATE"),
            help="an L2 penalty; decoupled from the gradient for adamw, as a share of "
            "the learning rate",
        ),
        _INCIDENTAL(
            "seed",
            type=types.seed,
            default=0,
            may_change=False,
            help="of all that is random: on a CPU, the same seed gives the same log to "
            "the bit",
        ),
    ),
    "where": (
        _INCIDENTAL(
            "gpu",
            type=int,
            default=-1,
            is_exclusive=True,
            more=_metavar("N"),
            help="number of the GPU, negative for the CPU",
        ),
        _INCIDENTAL(
            "device",
            is_exclusive=True,
            more=_metavar("SPEC"),
            help="the same as one of Chainer's specifiers: @numpy, @cupy:0, @intel64",
        ),
        _SETTING(
            "dtype",
            default="float32",
            is_named=True,
            more=_choices(*training.DTYPES),
            help="of the network; mixed16 is float16, with float32 copies of the "
            "weights and for batch statistics",
        ),
        _SETTING(
            "loss_scale",
            type=types.positive,
            is_named=True,
            more=_metavar("S"),
            help="scale the loss by a constant for --dtype float16 or mixed16, so that "
            "small gradients do not become zero (default: by as much as fits)",
        ),
        _INCIDENTAL(
            "graph",
            default=False,
            help="experimental, on a GPU: capture a training step of each layer as a "
            "CUDA graph and replay it",
        ),
        _INCIDENTAL(
            "data_on_device",
            default=False,
            help="keep all images on the device and augment them there, a batch at a "
            "time; faster with --augment, and the results are the same; on a GPU "
            "experimental",
        ),
        _INCIDENTAL(
            "out",
            more=_metavar("FOLDER"),
            help="output folder (default: result/ and a name of dataset, model, mixing "
            "and seed)",
        ),
        _INCIDENTAL(
            "resume",
            more=_metavar("SNAPSHOT", nargs="?", const=True),
            help="go on from a snapshot, or the newest in a folder, without a value in "
            "the output folder; on a CPU, the result is that of a run without a break",
        ),
        _INCIDENTAL(
            "analyse",
            default=False,
            help="when trained, measure calibration and robustness too (FGSM, and "
            "images rotated, sheared and zoomed) and draw mixed images, for "
            "chainer-mmix report",
        ),
        _INCIDENTAL(
            "tensorboard",
            default=False,
            help="write the log for TensorBoard too, into a folder tensorboard of the "
            "output folder; needs the extra tensorboard",
        ),
        _INCIDENTAL("quiet", default=False, help="print no table and no progress bar"),
    ),
}

OPTIONS = {option.name: option for group in GROUPS.values() for option in group}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds all options to a parser."""
    for title, options in GROUPS.items():
        group = parser.add_argument_group(title)
        exclusive = group.add_mutually_exclusive_group()
        for option in options:
            option.add_to(exclusive if option.is_exclusive else group)


def changed_words(args: argparse.Namespace) -> list[str]:
    """Names the options that are part of a run's name and not at their defaults.

    Returns:
        list of str: Names with values, those of mixing last.
    """
    words = []
    for option in sorted(OPTIONS.values(), key=lambda option: option.kind == "mixing"):
        value = getattr(args, option.name)
        if option.is_named and value != option.default:
            if option.name == "pretrained":
                value = Path(value).stem
            word = option.flag[2:]
            words.append(word if value is True else f"{word}-{value}")
    return words


def setting_of(args: argparse.Namespace) -> Setting:
    """Returns the setting that arguments mean, after defaults were filled in."""
    mixes = args.mixup != "none"
    values = {
        option.name: getattr(args, option.name)
        for option in OPTIONS.values()
        if option.name == "mixup"
        or option.kind == "setting"
        or (option.kind == "mixing" and mixes)
    }
    del values["epoch"]
    return Setting(
        values,
        args.epoch,
        f"{args.model} on {args.dataset}",
        mixing=[option.name for option in OPTIONS.values() if option.kind == "mixing"],
        mixes=mixes and any((args.alpha, args.alpha_end, args.cutmix_alpha)),
        main=[option.name for option in OPTIONS.values() if option.is_main],
        follows={"layer_mix": "mixup"},
    )


@contextlib.contextmanager
def naming(*names: str) -> Iterator[None]:
    """Adds to the errors of a ``with`` block which options they are about."""
    try:
        yield
    except (ImportError, OSError, ValueError) as e:
        flags = ", ".join(OPTIONS[name].flag for name in names)
        raise ValueError(f"{e} ({flags})") from e
