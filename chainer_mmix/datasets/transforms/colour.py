from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainer_mmix.checks import check_number
from chainer_mmix.datasets.transforms.base import Transform


class Brightness(Transform):
    """Multiplies an image in [0, 1] by a number and clips it at 1.

    Source: ``brightness_range`` of the ImageDataGenerator of Keras, which rounds to 8
    bits. Until Keras-Preprocessing 1.1, it first stretched each image from black to
    white.

    Args:
        low, high (float): The number is uniform between them, at least 0.

    Raises:
        ValueError: If they are not such numbers, or ``low`` is above ``high``.
    """

    def __init__(self, low: float, high: float) -> None:
        check_number("low", low)
        check_number("high", high)
        if low > high:
            raise ValueError(
                f"brightness must be two numbers, the lower first, not {low} and {high}"
            )
        self.low = low
        self.high = high

    def draw(self, shape: tuple[int, ...], rng: Any) -> float:
        return rng.uniform(self.low, self.high)

    def apply(self, images: np.ndarray, draws: Sequence) -> np.ndarray:
        _check_range(images)
        factors = np.array(draws, np.float32).reshape(-1, 1, 1, 1)
        return (images * factors).clip(0, 1)


class ColourJitter(Transform):
    """Changes brightness, contrast, saturation and hue, in random order.

    The first three factors are uniform between 1 - v and 1 + v, but not below 0, of the
    given v; the shift of the hue is uniform between -v and v turns of the colour wheel.
    Images are in [0, 1], and stay there. Grey ones have no saturation and no hue to
    change.

    Source: ``ColorJitter`` of torchvision, for tensors of floats.

    Args:
        brightness, contrast, saturation (float): At least 0, which leaves it as it is.
            The default is 0.
        hue (float): In [0, 0.5]. The default is 0.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
    ) -> None:
        check_number("brightness", brightness)
        check_number("contrast", contrast)
        check_number("saturation", saturation)
        check_number("hue", hue)
        if hue > 0.5:
            raise ValueError(f"hue must lie in [0, 0.5], not {hue}")
        self.strengths = brightness, contrast, saturation, hue

    def draw(self, shape: tuple[int, ...], rng: random.Random) -> list:
        """Draws pairs of what to change and by how much, in order."""
        n = 4 if shape[0] == 3 else 2
        changes = []
        for kind, strength in enumerate(self.strengths[:n]):
            if strength:
                low = -strength if kind == 3 else max(0.0, 1 - strength)
                high = strength if kind == 3 else 1 + strength
                changes.append((kind, rng.uniform(low, high)))
        rng.shuffle(changes)
        return changes

    def apply(self, images: np.ndarray, draws: Sequence) -> np.ndarray:
        _check_range(images)
        y = images.copy()
        for n, changes in enumerate(draws):
            for kind, amount in changes:
                y[n] = _CHANGES[kind](y[n], np.float32(amount))
        return y


def _check_range(images: np.ndarray) -> None:
    low, high = images.min(), images.max()
    if low < -0.01 or high > 1.01:  # else it is a rounding
        raise ValueError(
            f"brightness and colour are those of images in [0, 1], but these go from "
            f"{low:.4g} to {high:.4g}: divide them by their largest value, and "
            "standardise afterwards, as in the network"
        )


def _brightness(image: np.ndarray, factor: np.float32) -> np.ndarray:
    return (image * factor).clip(0, 1)


def _contrast(image: np.ndarray, factor: np.float32) -> np.ndarray:
    mean = _grey(image).mean(dtype=np.float64).astype(np.float32)
    return (image * factor + (1 - factor) * mean).clip(0, 1)


def _saturation(image: np.ndarray, factor: np.float32) -> np.ndarray:
    return (image * factor + (1 - factor) * _grey(image)).clip(0, 1)


def _grey(image: np.ndarray) -> np.ndarray:
    if len(image) == 1:
        return image[0]
    red, green, blue = image
    return (
        np.float32(0.2989) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    )


def _hue(image: np.ndarray, turn: np.float32) -> np.ndarray:
    value = image.max(axis=0)
    chroma = value - image.min(axis=0)
    red, green, blue = image
    divisor = np.where(chroma > 0, chroma, np.float32(1))
    sixths = np.select(
        [chroma == 0, value == red, value == green],
        [
            np.zeros_like(value),
            (green - blue) / divisor,
            (blue - red) / divisor + 2,
        ],
        (red - green) / divisor + 4,
    )
    sixths = sixths + 6 * turn
    # What is red, green and blue is 5, 3 and 1 sixths of a turn from what is dark.
    shift = np.array([5, 3, 1], np.float32)[:, None, None]
    k = np.mod(shift + sixths, 6)
    return value - chroma * np.minimum(k, 4 - k).clip(0, 1)


_CHANGES = _brightness, _contrast, _saturation, _hue
