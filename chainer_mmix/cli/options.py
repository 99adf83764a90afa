"""The options of the training command: one table, from which all else follows.

A new option is one more entry of :data:`GROUPS`, and the line that uses its value.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chainer.functions as F

from chainer_mmix import datasets, models, training
from chainer_mmix.cli import argument_types as types
from chainer_mmix.mixing import softmax_binary_cross_entropy
from chainer_mmix.models.resnet import STEMS
from chainer_mmix.runs.record import Setting
from chainer_mmix.training.multinode.launch import COMMUNICATORS

# What depends on the dataset: enough for digits in minutes on a CPU; for CIFAR, and
# what is like it, as in the original Chainer implementation.
_GREY = ("mnist", "fashion-mnist", "emnist")
_COLOUR = ("cifar10", "cifar100", "svhn", "stl10", "tiny-imagenet")
EPOCH = {
    **dict.fromkeys(("digits", "mnist5k", *_GREY, "npz:FILE"), 10),
    **dict.fromkeys(_COLOUR, 300),
    "folder:PATH": 30,
}
BATCHSIZE = {
    **dict.fromkeys(("digits", "mnist5k", "npz:FILE"), 64),
    **dict.fromkeys(_GREY, 128),
    **dict.fromkeys(_COLOUR, 256),
    "folder:PATH": 32,
}
FOLDER_SIZE = 224  # as ImageNet's
# How the learning rate grows with the number of ranks, as a power.
LR_SCALING = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}
LOSSES = {"ce": F.softmax_cross_entropy, "bce": softmax_binary_cross_entropy}


class Tag(enum.Flag):
    """Properties of an option."""

    SETTING = enum.auto()  # what is trained, and how
    MIXING = enum.auto()  # how it is mixed, which --mixup none refuses
    INCIDENTAL = enum.auto()  # where, and what is watched: not told apart in compare
    CHANGES = enum.auto()  # a resumed run may change it
    MAIN = enum.auto()  # always said
    NAMED = enum.auto()  # said in the default output folder's name, if unusual
    EXCLUSIVE = enum.auto()  # excludes the others of its group that are
    LATER = enum.auto()  # older records lack it: no part of a setting at its default


SETTING, MIXING, INCIDENTAL = Tag.SETTING, Tag.MIXING, Tag.INCIDENTAL
CHANGES, MAIN, NAMED, EXCLUSIVE = Tag.CHANGES, Tag.MAIN, Tag.NAMED, Tag.EXCLUSIVE
LATER = Tag.LATER
PLACE, NEWER = INCIDENTAL | CHANGES, NAMED | LATER


@dataclass(frozen=True)
class Option:
    """An option of the training command.

    Attributes:
        name (str): Its name in the arguments: ``layer_mix`` for ``--layer-mix``.
        tags (Tag): What it is.
        default: Its value when it is not given. ``False`` makes it a switch.
        parse (mapping): How ``add_argument`` makes its value.
        help (str): What it does.
    """

    name: str
    tags: Tag
    default: Any
    parse: Mapping[str, Any]
    help: str

    @property
    def flag(self) -> str:
        """The option as one types it."""
        return "--" + self.name.replace("_", "-")

    def add_to(self, group: argparse._ActionsContainer) -> None:
        """Adds it to a group of a parser."""
        how, help = dict(self.parse), self.help
        if self.default is False:
            can_be_in_a_recipe = self.tags & (SETTING | MIXING)
            action = (
                argparse.BooleanOptionalAction if can_be_in_a_recipe else "store_true"
            )
            how, help = {"action": action}, f"{help} (default: off)"
        elif self.default not in (None, []):
            help += f" (default: {str(self.default).removesuffix('.0')})"
        group.add_argument(self.flag, default=self.default, help=help, **how)


def options_with(tags: Tag) -> list[Option]:
    """Lists the options that have one of some tags."""
    return [option for option in OPTIONS.values() if option.tags & tags]


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


def _value(type: Callable, metavar: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": type, "metavar": metavar, **more}


_BOUNDS = _value(types.share, ("LOW", "HIGH"), nargs=2)


def _one_of(*choices: str) -> dict[str, Any]:
    return {"choices": choices}


GROUPS: dict[str, Sequence[Option]] = {
    "what to train": (
        Option(
            *("recipe", INCIDENTAL, None, _value(str, "NAME")),
            "set all that the command line does not say as it was published: "
            "paper-DATASET-MODEL, chainer-cifar10-resnet50, keras-notebook or "
            "keras-folder; list shows them all",
        ),
        Option(
            *("dataset", SETTING | MAIN, "digits", _value(types.dataset, "NAME")),
            f"one of {', '.join(datasets.DATASETS)}, or folder:PATH for pictures, one "
            "folder a class, or npz:FILE for arrays x and t; digits (1442 training "
            "images of 8x8 pixels) come with scikit-learn, mnist5k (5,000 images of "
            "MNIST) with the extra mnist, the others are downloaded and cached",
        ),
        Option(
            *("data_root", PLACE, None, _value(str, "FOLDER")),
            "where the files of a named dataset are, or are downloaded to (default: "
            "Chainer's dataset cache)",
        ),
        Option(
            *("size", SETTING | NAMED, None, _value(types.positive_int, "N")),
            f"height and width to which pictures of folder:PATH are cropped and "
            f"resized (default: {FOLDER_SIZE})",
        ),
        Option(
            *("validation_split", SETTING | NAMED, None, _value(types.part, "P")),
            "validate on this share of the training images, of every class, in place "
            "of the test set, which is evaluated once, after the last epoch (default: "
            "validate on the validation set if the dataset has one, else on the test "
            "set)",
        ),
        Option(
            *("skip_corrupt", SETTING, False, {}),
            "leave out pictures of folder:PATH that cannot be read, with a warning, "
            "in place of an error that lists them",
        ),
        Option(
            *("model", SETTING | MAIN, "resnet50", _value(str, "NAME")),
            f"one of {', '.join(models.MODELS)}",
        ),
        Option(
            *("stem", SETTING | NAMED, "imagenet", _one_of(*STEMS)),
            "the first layers of resnet18 to resnet152: a 7x7 convolution of stride 2 "
            "and pooling, a 3x3 convolution that keeps the size, or those of "
            "torchvision and timm, whose weights --pretrained can then read",
        ),
        Option(
            *("downsample_fb", SETTING | NAMED, False, {}),
            "for resnet50, 101 and 152: stride in the 3x3 convolutions, which weights "
            "of ChainerCV need",
        ),
        Option(
            *("published", SETTING | NAMED, False, {}),
            "for preactresnet18 to 152 and wideresnet28_10: the network of the paper's "
            "code, with its initial weights and eps of batch normalisation",
        ),
        Option(
            *("pretrained", SETTING | NAMED, None, _value(types.path, "FILE")),
            "start from the weights in this file, except for the last layer: ImageNet "
            "weights of Chainer (ResNet-50-model.npz) or ChainerCV for resnet50, 101 "
            "and 152, of torchvision or timm (.safetensors, .pth) with --stem "
            "torchvision, or weights that a run of the same model saved; images stay "
            "RGB in [0, 1], to which ImageNet weights have to adapt; for colour "
            "images, as in folder:PATH, not for grey digits",
        ),
        Option(
            *("stem_stride", SETTING | NEWER, 1, _value(types.positive_int, "N")),
            "for preactresnet18 to 152 and wideresnet28_10: stride of the first "
            "convolution; the paper's code uses 2 for tiny-imagenet",
        ),
        Option(
            *("standardise", SETTING | NEWER, None, _one_of(*datasets.STANDARDISE)),
            "have the network subtract the mean from its input and divide by the "
            "standard deviation, both measured over the training images: of each "
            "channel, or of all pixels; half: subtract 0.5 and divide by 0.5; image: "
            "each image by its own (default: images stay in [0, 1])",
        ),
        Option(
            *("train_size", SETTING, None, _value(types.positive_int, "N")),
            "train on N images only, a random choice in which every class keeps "
            "its share (default: all)",
        ),
        Option(
            *("label_noise", SETTING, 0.0, _value(types.share, "P")),
            "replace this share of the training labels by random other ones, 0 to "
            "1; the others stay right",
        ),
    ),
    "augmentation of the training images, in this order": (
        Option(
            *("augment", SETTING, False, {}),
            "the dataset's usual augmentation: for a folder, random parts resized to "
            "--size, and flips; else random crops with a margin, rotation by up to 10 "
            "degrees, and flips where a mirrored image shows the same class",
        ),
        Option(
            *("pad_crop", SETTING | NEWER, None, _value(types.positive_int, "N")),
            "add N pixels of zeros on each side and crop at a random place",
        ),
        Option(
            *("flip", SETTING | NEWER, False, {}),
            "mirror half of the images left to right",
        ),
        Option(
            *("flip_vertical", SETTING | NEWER, False, {}),
            "turn half of the images upside down",
        ),
        Option(
            *("quarter_turn", SETTING | NEWER, False, {}),
            "turn by 0, 90, 180 or 270 degrees",
        ),
        Option(
            *("rotate", SETTING | NEWER, 0.0, _value(types.not_negative, "DEGREES")),
            "rotate by up to this angle to either side; this option and the next three "
            "are those of Keras's ImageDataGenerator: beyond the edge, the nearest "
            "pixel is repeated",
        ),
        Option(
            *("width_shift", SETTING | NEWER, 0.0, _value(types.share, "P")),
            "shift to the left or right by up to this share of the width",
        ),
        Option(
            *("height_shift", SETTING | NEWER, 0.0, _value(types.share, "P")),
            "shift up or down by up to this share of the height",
        ),
        Option(
            *("shear", SETTING | NEWER, 0.0, _value(types.not_negative, "DEGREES")),
            "shear by up to this angle",
        ),
        Option(
            *("brightness", SETTING | NEWER, None),
            _value(types.not_negative, ("LOW", "HIGH"), nargs=2),
            "multiply by a random number from LOW to HIGH, and clip at white",
        ),
        Option(
            *("colour_jitter", SETTING | NEWER, None),
            _value(types.not_negative, ("B", "C", "S", "H"), nargs=4),
            "change brightness, contrast, saturation and hue at random, like "
            "torchvision's ColorJitter(B, C, S, H)",
        ),
        Option(
            *("cutout", SETTING | NEWER, None, _value(types.positive_int, "N")),
            "fill a square of N by N pixels at a random place: black, or with "
            "--standardise the mean (arXiv 1708.04552)",
        ),
    ),
    "mixing": (
        Option(
            *("mixup", MIXING | MAIN, "manifold", _one_of("manifold", "input", "none")),
            "mix at a randomly drawn layer, at the input only (layer 0), or not at all",
        ),
        Option(
            *("alpha", MIXING | MAIN, 0.2, _value(types.not_negative)),
            "lambda is drawn from Beta(ALPHA, ALPHA); 0 means no mixing; the "
            "paper uses 2 for CIFAR",
        ),
        Option(
            *("layer_mix", MIXING, None, _value(types.point, "K", nargs="+")),
            f"layers to draw from; 0 is the input: {_points()}",
        ),
        Option(
            *("alpha_end", MIXING | NAMED, None, _value(types.not_negative, "A")),
            "shift alpha linearly to A until the last epoch (default: it stays)",
        ),
        Option(
            *("per", MIXING | NAMED, "batch", _one_of("batch", "pair", "sample")),
            "draw one lambda per minibatch, per pair of samples that are mixed with "
            "each other, or per sample",
        ),
        Option(
            *("fold", MIXING | NAMED, False, {}),
            "use the larger of lambda and 1 - lambda",
        ),
        Option(
            *("mixup_prob", MIXING | NAMED, 1.0, _value(types.share, "P")),
            "probability that a minibatch is mixed, or a pair or sample as --per says",
        ),
        Option(
            *("mixup_prob_end", MIXING | NAMED, None, _value(types.share, "P")),
            "shift the probability of mixing linearly to P until the last epoch "
            "(default: it stays)",
        ),
        Option(
            *("mixup_off_epoch", MIXING | NAMED, None, _value(types.positive_int, "E")),
            "stop mixing after this epoch (default: never)",
        ),
        Option(
            *("cutmix_alpha", MIXING | NAMED, 0.0, _value(types.not_negative, "A")),
            "CutMix with lambda from Beta(A, A): in place of mixup with --alpha "
            "0, else beside it; 0 means none",
        ),
        Option(
            *("cutmix_minmax", MIXING | NEWER, None, _BOUNDS),
            "CutMix with boxes whose sides are between these shares of the map's, in "
            "place of --cutmix-alpha",
        ),
        Option(
            *("fmix_alpha", MIXING | NEWER, None, _value(types.positive, "A")),
            "FMix with lambda from Beta(A, A), in place of mixup or beside it, like "
            "CutMix (default: none)",
        ),
        Option(
            *("resizemix_minmax", MIXING | NEWER, None, _BOUNDS),
            "ResizeMix, in place of mixup or beside it, like CutMix: the partner, "
            "resized by a factor between these, is pasted; the paper uses 0.1 0.8 "
            "(default: none)",
        ),
        Option(
            *("switch_prob", MIXING | NAMED, 0.5, _value(types.share, "P")),
            "probability of CutMix, FMix or ResizeMix where there is mixup too",
        ),
        Option(
            *("fixed_lam", MIXING | NAMED, None, _value(types.share, "L")),
            "use this lambda, 0 to 1, in place of those drawn; the alphas and bounds "
            "then only tell how to mix",
        ),
        Option(
            *("clean_weight", MIXING | NEWER, None, _value(types.share, "W")),
            "give the loss of the unmixed minibatch this share of the loss (RegMixup: "
            "0.5), which takes a second forward and backward pass (default: none)",
        ),
        Option(
            *("remix_kappa", MIXING | NEWER, None, _value(types.at_least_one, "K")),
            "Remix, for imbalanced classes: a mixture has only the label of the rare "
            "class if the other class has K times as many images; the paper uses 3 "
            "(default: it has both labels)",
        ),
        Option(
            *("remix_tau", MIXING | NEWER, None, _value(types.share, "T")),
            "with --remix-kappa: only if the weight of the frequent class is below T "
            "(default: 0.5)",
        ),
    ),
    "optimization": (
        Option(
            *("loss", SETTING | NAMED, "ce", _one_of(*LOSSES)),
            "cross entropy, or binary cross entropy of the softmax as in the "
            "paper's code, whose gradient is smaller, about by the number of classes",
        ),
        Option(
            *("label_smoothing", SETTING | NAMED, 0.0, _value(types.share, "E")),
            "spread this share of each training label over all classes",
        ),
        Option(
            *("epoch", SETTING | CHANGES, None, _value(types.positive_int, "N")),
            f"passes over the training set (default: {_by_value(EPOCH)})",
        ),
        Option(
            *("batchsize", SETTING | CHANGES, None, _value(types.positive_int, "N")),
            f"images in a minibatch (default: {_by_value(BATCHSIZE)})",
        ),
        Option(
            *("optimizer", SETTING, "adam", _one_of(*training.OPTIMIZERS)),
            "sgd is PyTorch's, with --nesterov as in the paper's code; momentum_sgd "
            "and nesterov are Chainer's, in which a drop of the learning rate takes "
            "effect late",
        ),
        Option(
            *("momentum", SETTING, 0.9, _value(types.share)),
            "the momentum of sgd, momentum_sgd and nesterov",
        ),
        Option(
            *("nesterov", SETTING, False, {}),
            "Nesterov's momentum for --optimizer sgd",
        ),
        Option(
            *("lr", SETTING | CHANGES, None, _value(types.positive)),
            f"learning rate (default: {_by_value(training.OPTIMIZERS)})",
        ),
        Option(
            *(
                "lr_drop",
                SETTING | CHANGES,
                [],
                _value(types.positive_int, "E", nargs="+"),
            ),
            "divide the learning rate by 10 after these epochs (default: never)",
        ),
        Option(
            *("warmup", SETTING | NEWER, None, _value(types.natural, "N")),
            "epochs over which the learning rate grows to its value (default: 0; with "
            "--lr-scaling, 5 or half of all epochs, whichever is less)",
        ),
        Option(
            *("cosine", SETTING | NEWER, False, {}),
            "let the learning rate fall to 0 along half a cosine until the last epoch",
        ),
        Option(
            *("grad_clip", SETTING | NEWER, None, _value(types.positive, "NORM")),
            "scale the gradient of all parameters together down to this L2 norm "
            "(default: no clipping)",
        ),
        Option(
            *(
                "weight_decay",
                SETTING | CHANGES,
                0.0,
                _value(types.not_negative, "RATE"),
            ),
            "an L2 penalty; for adamw, a decay that is decoupled from the gradient and "
            "multiplied by the learning rate",
        ),
        Option(
            *("seed", INCIDENTAL, 0, _value(types.seed)),
            "seed of all random numbers; on a CPU, the same seed gives bit-for-bit the "
            "same log",
        ),
    ),
    "where": (
        Option(
            *("gpu", PLACE | EXCLUSIVE, -1, _value(types.gpu, "N")),
            "number of the GPU, negative for the CPU",
        ),
        Option(
            *("device", PLACE | EXCLUSIVE, None, _value(str, "SPEC")),
            "in place of --gpu, one of Chainer's specifiers: @numpy, @cupy:0, @intel64",
        ),
        Option(
            *("dtype", SETTING | NAMED, "float32", _one_of(*training.DTYPES)),
            "dtype of the network; mixed16 is float16 with float32 copies of the "
            "weights and float32 batch statistics",
        ),
        Option(
            *("loss_scale", SETTING | NAMED, None, _value(types.positive, "S")),
            "scale the loss by a constant for --dtype float16 or mixed16, so that "
            "small gradients do not become zero (default: by as much as fits)",
        ),
        Option(
            *("graph", PLACE, False, {}),
            "record a training step of each layer, and on a CPU an evaluation, and "
            "replay them, with the same results; on a GPU, where it is a CUDA graph, "
            "experimental",
        ),
        Option(
            *("data_on_device", PLACE, False, {}),
            "keep all images on the device and augment them there, a batch at a "
            "time; faster with --augment, and the results are the same; on a GPU "
            "experimental",
        ),
        Option(
            *("workers", PLACE, 0, _value(types.natural, "N")),
            "processes that read and augment the training images, and as many that "
            "read the images to validate on; the results are bit-for-bit the same",
        ),
        Option(
            *("out", PLACE, None, _value(str, "FOLDER")),
            "output folder (default: result/ and a name of dataset, model, mixing "
            "and seed)",
        ),
        Option(
            *("resume", PLACE, None, _value(str, "SNAPSHOT", nargs="?", const=True)),
            "resume from a snapshot, or from the newest good one in a folder (without "
            "a value: in the output folder); arguments that are not given are taken "
            "from the run's record; auto starts anew if there is nothing to resume; "
            "on a CPU, the result equals that of an uninterrupted run",
        ),
        Option(
            *("top_k", PLACE, None, _value(types.positive_int, "K")),
            "also log the share of images whose class is among the K most probable, as "
            "top5_accuracy for 5",
        ),
        Option(
            *("analyse", PLACE, False, {}),
            "after training, also measure calibration and robustness (FGSM, and "
            "rotated, sheared and zoomed images) and draw mixed images, for "
            "chainer-mmix report",
        ),
        Option(
            *("tensorboard", PLACE, False, {}),
            "write the log for TensorBoard too, into a folder tensorboard of the "
            "output folder; needs the extra tensorboard",
        ),
        Option(
            *("quiet", PLACE, False, {}),
            "print no table and no progress bar",
        ),
    ),
    "several processes": (
        Option(
            *("communicator", PLACE, "auto", _one_of(*COMMUNICATORS)),
            "ChainerMN's, by which the ranks that mpiexec starts train together, each "
            "on --batchsize images; auto is pure_nccl on GPUs and naive on CPUs, and "
            "none without mpiexec",
        ),
        Option(
            *("gpus", PLACE, None, _value(types.gpus, "N,N")),
            "the GPU of each rank of a machine, such as 0,1,2,3; without mpiexec, as "
            "many ranks are started here",
        ),
        Option(
            *("common_draw", MIXING | NEWER, False, {}),
            "mix at the same layer by the same lambda on all ranks",
        ),
        Option(
            *("sync_bn", SETTING | NEWER, False, {}),
            "batch normalisation with the statistics of all ranks together",
        ),
        Option(
            *("lr_scaling", SETTING | NEWER, "none", _one_of(*LR_SCALING)),
            "multiply the learning rate by the number of ranks, or by its square root",
        ),
        Option(
            *("rank_timeout", PLACE, 6.0, _value(types.not_negative, "S")),
            "end all ranks when one has not answered for S seconds; 0 for never",
        ),
    ),
    "what is kept": (
        Option(
            *("snapshot_every", PLACE, None, _value(types.every, "N")),
            "save a snapshot each N iterations, or each N minutes with 30min for 30, "
            "besides the end of each epoch",
        ),
        Option(
            *("keep", PLACE, 2, _value(types.positive_int, "N")),
            "how many of the newest snapshots to keep",
        ),
        Option(
            *("keep_best", PLACE, "validation/main/accuracy", _value(str, "KEY")),
            "keep the snapshot of the best epoch by this key of the log too, the "
            "lowest if it is a loss or an error",
        ),
        Option(
            *("early_stopping", SETTING | CHANGES | NEWER, None),
            _value(types.positive_int, "N"),
            "end after N epochs without a better value of --keep-best (default: never)",
        ),
    ),
}

OPTIONS = {option.name: option for group in GROUPS.values() for option in group}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds all options to a parser."""
    for title, options in GROUPS.items():
        group = parser.add_argument_group(title)
        exclusive = group.add_mutually_exclusive_group()
        for option in options:
            option.add_to(exclusive if EXCLUSIVE in option.tags else group)


def changed_words(
    args: argparse.Namespace, usual: Mapping[str, Any] | None = None
) -> list[str]:
    """Names the options that are part of a run's name and not at their defaults.

    Args:
        args (argparse.Namespace): The arguments.
        usual (mapping): Other defaults, those of a recipe. The default is none.

    Returns:
        list of str: Names with values, those of mixing last.
    """
    words = []
    for option in (*options_with(SETTING), *options_with(MIXING)):
        value = getattr(args, option.name)
        default = (usual or {}).get(option.name, option.default)
        if NAMED in option.tags and value != default:
            if option.name == "pretrained":
                value = Path(value).stem
            if isinstance(value, list):
                value = "-".join(f"{number:g}" for number in value)
            word = option.flag[2:]
            if isinstance(value, bool):
                words.append(word if value else f"no-{word}")
            else:
                words.append(f"{word}-{value}")
    return words


# What the line at the start of a run says in words.
_SAID = {"layer_mix", "train_size", "epoch", "batchsize", "optimizer", "lr"}


def more_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings that are not at their defaults, but for the main ones."""
    names = [o.name for o in options_with(SETTING | MIXING) if MAIN not in o.tags]
    return {
        name: value
        for name in names
        if name not in _SAID and (value := getattr(args, name)) != OPTIONS[name].default
    }


def setting_of(args: argparse.Namespace, ranks: int = 1) -> Setting:
    """Returns the setting that arguments mean, after defaults were filled in.

    Args:
        args (argparse.Namespace): The arguments.
        ranks (int): By how many the batch size is multiplied.
    """
    is_on = args.mixup != "none"
    names = [option.name for option in options_with(SETTING | MIXING)]
    mixing = [option.name for option in options_with(MIXING)]
    said = {name for name in names if is_on or name not in mixing[1:]} - {"epoch"}
    later = {o.name for o in options_with(LATER) if getattr(args, o.name) == o.default}
    said -= later
    values = {name: getattr(args, name) for name in names if name in said}
    if ranks > 1:
        values["ranks"] = ranks
    return Setting(
        values,
        args.epoch,
        f"{args.model} on {datasets.short_name(args.dataset)}",
        mixing,
        mixes(args),
        [option.name for option in options_with(MAIN)],
        {"layer_mix": "mixup"},
    )


def mixes(args: argparse.Namespace) -> bool:
    """Tells whether anything is ever mixed."""
    is_on = args.mixup != "none" and any([args.mixup_prob, args.mixup_prob_end])
    return is_on and any([args.alpha, args.alpha_end, *pasting(args)])


def pasting(args: argparse.Namespace) -> list[str]:
    """Names the options that are given and let places be pasted."""
    names = "cutmix_alpha", "cutmix_minmax", "fmix_alpha", "resizemix_minmax"
    return [name for name in names if getattr(args, name)]


@contextlib.contextmanager
def naming(*names: str) -> Iterator[None]:
    """Adds to the errors of a ``with`` block which options they are about."""
    try:
        yield
    except (ImportError, OSError, ValueError) as e:
        if not names or "(--" in str(e):  # where it has been said
            raise
        flags = ", ".join(OPTIONS[name].flag for name in names)
        raise ValueError(f"{e} ({flags})") from e
