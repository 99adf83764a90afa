from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainer_mmix.checks import check_whole
from chainer_mmix.datasets.transforms.base import Transform


class PadCrop(Transform):
    """Adds zeros around an image and crops it to its size again at a random place.

    Source: He et al., "Deep Residual Learning for Image Recognition", section 4.2.

    Args:
        padding (int): Pixels of zeros on each side, at least 1.

    Raises:
        ValueError: If ``padding`` is not such a number.
    """

    def __init__(self, padding: int) -> None:
        check_whole("padding", padding, 1)
        self.padding = padding

    def draw(self, shape: tuple[int, ...], rng: Any) -> tuple[int, int]:
        return rng.randint(0, 2 * self.padding), rng.randint(0, 2 * self.padding)

    def apply(self, images: np.ndarray, draws: Sequence) -> np.ndarray:
        height, width = images.shape[2:]
        side = self.padding, self.padding
        padded = np.pad(images, ((0, 0), (0, 0), side, side))
        y = np.empty_like(images)
        for n, (top, left) in enumerate(draws):
            y[n] = padded[n, :, top : top + height, left : left + width]
        return y


class Flip(Transform):
    """Mirrors half of the images.

    Args:
        horizontal (bool): Whether left to right. The default is ``True``.
        vertical (bool): Whether upside down, too, independently. The default is
            ``False``.
    """

    def __init__(self, horizontal: bool = True, vertical: bool = False) -> None:
        self.horizontal = horizontal
        self.vertical = vertical

    def draw(self, shape: tuple[int, ...], rng: Any) -> tuple[bool, bool]:
        return (
            self.horizontal and rng.random() < 0.5,
            self.vertical and rng.random() < 0.5,
        )

    def apply(self, images: np.ndarray, draws: Sequence) -> np.ndarray:
        y = images.copy()
        for n, (horizontal, vertical) in enumerate(draws):
            if horizontal or vertical:
                rows = slice(None, None, -1 if vertical else 1)
                y[n] = images[n, :, rows, slice(None, None, -1 if horizontal else 1)]
        return y


class Cutout(Transform):
    """Fills a square at a random place, which may reach over the edge.

    Its centre is any pixel with equal probability, so that less is filled near the
    edge.

    Source: `arXiv 1708.04552 <https://arxiv.org/abs/1708.04552>`_ and its code, which
    rounds an odd ``length`` down and fills with 0 after the images were standardised.

    Args:
        length (int): Height and width of the square in pixels, at least 2.
        fill (float or sequence of float): What to fill it with, for each channel. The
            default is 0.

    Raises:
        ValueError: If ``length`` is not such a number.
    """

    def __init__(self, length: int, fill: float | Sequence[float] = 0.0) -> None:
        check_whole("length", length, 2)
        self.length = length
        self.fill = np.asarray(fill, np.float32)

    def draw(self, shape: tuple[int, ...], rng: Any) -> tuple[int, int]:
        return rng.randrange(shape[1]), rng.randrange(shape[2])

    def apply(self, images: np.ndarray, draws: Sequence) -> np.ndarray:
        y, half = images.copy(), self.length // 2
        for image, (row, column) in zip(y, draws, strict=True):
            rows = slice(max(0, row - half), row + half)
            columns = slice(max(0, column - half), column + half)
            image[:, rows, columns] = self.fill.reshape(-1, 1, 1)
        return y
