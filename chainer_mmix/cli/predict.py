"""``chainer-mmix predict``: classes and probabilities of pictures."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from chainer_mmix.cli import command
from chainer_mmix.cli.argument_types import positive_int

if TYPE_CHECKING:
    from chainer_mmix.inference import Predictor

_DESCRIPTION = """\
Predict with the trained network of a run: print the class of each picture and the
probabilities. Pictures become inputs as those that the run validated on. A network
for small images of one shape, such as digits, is given the centre of a picture,
resized; one for grey images a grey picture.

An INPUT is a picture, a folder of pictures, or a file .npy or .npz of an array x of
shape (N, C, H, W), bytes from 0 to 255 or floats as the network was trained on.
"""
_EPILOG = """\
examples:
  chainer-mmix predict result/pets_resnet50_manifold_alpha0.2_seed0 cat.jpg
  chainer-mmix predict result/digits_cnn_manifold_alpha0.2_seed0 scans/ --invert
"""


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what says which network is loaded, and where it computes."""
    parser.add_argument("run_folder", metavar="RUN", help="the output folder of a run")
    parser.add_argument(
        "--which",
        choices=("best", "final"),
        default="best",
        help="the snapshot of the best epoch or the newest (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        default="@numpy",
        metavar="SPEC",
        help="where to compute: one of Chainer's specifiers, such as @cupy:0, or the "
        "number of a GPU (default: the CPU)",
    )


def add_work_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds how the network goes through the images."""
    parser.add_argument(
        "--batchsize",
        type=positive_int,
        metavar="N",
        help="images in a minibatch (default: that of the run)",
    )
    command.add_quiet(parser)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds this command to those of the console script."""
    parser = command.add_parser(
        *(commands, "predict", _predict, ERRORS),
        help="classify pictures with the network of a run",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add_run_arguments(parser)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="what to classify")
    parser.add_argument(
        "--invert",
        action="store_true",
        help="make negatives of the pictures first, of dark ink on paper for a network "
        "that was trained on bright digits on black (default: off)",
    )
    parser.add_argument(
        "--format",
        choices=("text", "csv", "json"),
        default="text",
        help="csv and json have the probability of every class (default: %(default)s)",
    )
    parser.add_argument(
        "--top",
        type=positive_int,
        default=3,
        metavar="K",
        help="how many classes the table has (default: %(default)s)",
    )
    add_work_arguments(parser)
    parser.set_defaults(out="")


ERRORS = (ImportError, ValueError)


def load(args: argparse.Namespace, **more) -> Predictor:
    """Loads the network that arguments name, and says what may be unexpected."""
    from chainer_mmix.inference import load_predictor

    predictor = load_predictor(args.run_folder, args.which, device=args.device, **more)
    status, reason = map(predictor.record.get, ("status", "reason"))
    if status == "running":
        command.warn([f"{args.run_folder} is still at work, or was killed"])
    elif status == "failed":
        command.warn([f"{args.run_folder} did not come to its end ({reason})"])
    return predictor


def _predict(args: argparse.Namespace) -> int:
    from chainer_mmix.datasets import UnreadablePictureError
    from chainer_mmix.inference.inputs import find_inputs
    from chainer_mmix.progress import Progress

    predictor = load(args, invert=args.invert)
    size = predictor.batchsize = args.batchsize or predictor.batchsize
    inputs = find_inputs(args.inputs, predictor.preprocess)
    names: list[str] = []
    parts: list[np.ndarray] = []
    flaws: list[str] = []
    bright = 0
    with Progress(-(-len(inputs) // size), args.quiet) as tell:
        for start in range(0, len(inputs), size):
            tell(f"predicting, {start} of {len(inputs)}")
            batch = []
            for name, source in inputs[start : start + size]:
                try:
                    x = source
                    if isinstance(x, str):
                        x = predictor.preprocess.picture(x)
                        bright += _is_bright(x)
                except UnreadablePictureError as e:
                    flaws.append(f"left out: {e}")
                else:
                    names.append(name)
                    batch.append(x)
            parts.append(predictor(batch))
    if bright and is_on_black(predictor):
        have = "picture has" if bright == 1 else "pictures have"
        command.warn(
            [
                f"{bright} {have} bright corners, but the network was trained on "
                "bright strokes on black: make negatives with --invert"
            ]
        )
    _FORMATS[args.format](predictor, names, np.concatenate(parts), args.top)
    command.warn(flaws)
    return 1 if flaws else 0


_ON_BLACK = {"digits", "mnist5k", "mnist", "emnist", "fashion-mnist"}


def is_on_black(predictor: Predictor) -> bool:
    """Tells whether a network was trained on bright things on black."""
    return (predictor.record.get("arguments") or {}).get("dataset") in _ON_BLACK


def _is_bright(x: np.ndarray) -> bool:
    return bool(x[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean() > 0.5)


def _text(predictor: Predictor, names: Sequence[str], p: np.ndarray, top: int) -> None:
    from chainer_mmix.printable import printable

    names = [printable(name) for name in names]
    width = max(map(len, [*names, "file"]))
    classes = predictor.class_names
    wide = max(map(len, [*classes, "class"]))
    print(f"{'file':{width}}  {'class':{wide}}  probability  next")
    for name, row in zip(names, p, strict=True):
        first, *others = np.argsort(-row, kind="stable")[:top]
        rest = ", ".join(f"{classes[i]} {row[i]:.3f}" for i in others)
        line = f"{name:{width}}  {classes[first]:{wide}}  {row[first]:<11.3f}  {rest}"
        print(line.rstrip())


def _csv(predictor: Predictor, names: Sequence[str], p: np.ndarray, _: int) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    columns = (f"P({name})" for name in predictor.class_names)
    writer.writerow(["file", "class", "probability", *columns])
    for name, row in zip(names, p, strict=True):
        best = row.argmax()
        numbers = (f"{value:.6g}" for value in (row[best], *row))
        writer.writerow([name, predictor.class_names[best], *numbers])


def _json(predictor: Predictor, names: Sequence[str], p: np.ndarray, _: int) -> None:
    found = [
        {
            "file": name,
            "class": predictor.class_names[row.argmax()],
            "probability": float(row.max()),
            "probabilities": dict(
                zip(predictor.class_names, row.tolist(), strict=True)
            ),
        }
        for name, row in zip(names, p, strict=True)
    ]
    json.dump(found, sys.stdout, indent=2, allow_nan=False)
    print()


_FORMATS = {"text": _text, "csv": _csv, "json": _json}
