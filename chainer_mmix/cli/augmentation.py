"""The transforms that the augmentation options mean."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence

import numpy as np

from chainer_mmix import datasets
from chainer_mmix.cli.options import OPTIONS, naming


def transforms_of(
    args: argparse.Namespace, fill: Sequence[float] = (0.0,)
) -> dict[str, datasets.Transform]:
    """Makes transforms, in the order in which they are done.

    Args:
        args (argparse.Namespace): The arguments.
        fill (sequence of float): What Cutout fills with.

    Returns:
        dict: By the name of an option that asks for it.

    Raises:
        ValueError: If a value is out of range.
    """
    found: dict[str, datasets.Transform] = {}
    if args.pad_crop:
        found["pad_crop"] = datasets.PadCrop(args.pad_crop)
    if args.flip or args.flip_vertical:
        name = "flip" if args.flip else "flip_vertical"
        found[name] = datasets.Flip(args.flip, args.flip_vertical)
    if args.quarter_turn:
        found["quarter_turn"] = datasets.QuarterTurn()
    affine = args.rotate, args.width_shift, args.height_shift, args.shear
    if any(affine):
        names = "rotate", "width_shift", "height_shift", "shear"
        name = next(n for n, value in zip(names, affine, strict=True) if value)
        found[name] = datasets.Affine(*affine)
    for name, make in (
        ("brightness", datasets.Brightness),
        ("colour_jitter", datasets.ColourJitter),
    ):
        if getattr(args, name):
            with naming(name):
                found[name] = make(*getattr(args, name))
    if args.cutout:
        with naming("cutout"):
            found["cutout"] = datasets.Cutout(args.cutout, fill)
    return found


def check_image(transforms: dict[str, datasets.Transform], image: np.ndarray) -> None:
    """Tries transforms on an image, before the training.

    Raises:
        ValueError: If one of them is not for images of its shape.
    """
    for name, transform in transforms.items():
        size = {"cutout": "length", "pad_crop": "padding"}.get(name)
        if size and getattr(transform, size) >= min(image.shape[1:]):
            raise ValueError(
                f"{OPTIONS[name].flag} {getattr(transform, size)} may leave nothing of "
                f"images of {image.shape[1]}x{image.shape[2]}: choose a smaller one"
            )
        with naming(name):
            transform.apply(image[None], [transform.draw(image.shape, random.Random())])
