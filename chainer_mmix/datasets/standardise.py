"""Constants that standardise images: means and deviations of a training set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

STANDARDISE = ("channel", "all", "half", "image")


class Standardisation(NamedTuple):
    """Constants by which images are standardised: (image - mean) / std.

    Attributes:
        mean, std (tuple of float): One number a channel, or one for all.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def standardisation(kind: str, train: Sequence) -> Standardisation | None:
    """Finds the constants by which images are standardised.

    Args:
        kind (str): ``"channel"`` and ``"all"`` measure the mean and the standard
            deviation of the pixels, of each channel or of all channels together;
            ``"half"`` is 0.5 for both, which maps [0, 1] to [-1, 1]; ``"image"`` has no
            constants, since each image is standardised by its own.
        train (sequence): The training examples ``(image, label)``, without
            augmentation, the images of shape (C, H, W). They are read once, in threads.

    Returns:
        Standardisation: The constants, or ``None`` for ``"image"``.

    Raises:
        ValueError: If there is no such kind, the images do not have three axes or one
            shape, or a channel is constant.
    """
    if kind not in STANDARDISE:
        raise ValueError(
            f"unknown kind of standardisation {kind!r}: there are "
            f"{', '.join(STANDARDISE)}"
        )
    shape = np.shape(train[0][0])
    if len(shape) != 3:
        raise ValueError(
            f"only images of shape (C, H, W) can be standardised, not {shape}"
        )
    if kind == "image":
        return None
    if kind == "half":
        return Standardisation((0.5,), (0.5,))

    def sums(i: int) -> np.ndarray:
        x = train[i][0].astype(np.float64)
        if x.shape != shape:
            raise ValueError(
                f"images of several shapes, {shape} and {x.shape}, cannot be "
                "standardised alike: resize them"
            )
        return np.stack([x.sum((1, 2)), np.square(x).sum((1, 2))])

    total = np.zeros((2, shape[0]))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part in pool.map(sums, range(len(train))):
            total += part
    if kind == "all":
        total = total.mean(axis=1, keepdims=True)
    mean, square = total / (len(train) * shape[1] * shape[2])
    std = np.sqrt(np.maximum(square - mean**2, 0))
    if not std.min() > 1e-6:
        raise ValueError(
            "a channel of the training images is the same everywhere, so it has no "
            "standard deviation to divide by: leave the standardisation out"
        )
    return Standardisation(tuple(mean.tolist()), tuple(std.tolist()))
