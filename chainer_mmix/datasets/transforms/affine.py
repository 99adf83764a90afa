from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainer_mmix.checks import check_number
from chainer_mmix.datasets.transforms.base import Transform


class Affine(Transform):
    """Rotates, shifts and shears images, as the ImageDataGenerator of Keras.

    The angle of the rotation, the two shifts and the angle of the shear are uniform
    between minus and plus the given value. The pixel at (x, y), seen from the centre of
    the image with y downwards, comes from R (T + S (x, y)) with

    .. math::

        R = \\begin{pmatrix} \\cos r & -\\sin r \\\\ \\sin r & \\cos r \\end{pmatrix},
        \\quad T = \\begin{pmatrix} t_x \\\\ t_y \\end{pmatrix}, \\quad
        S = \\begin{pmatrix} 1 & -\\sin s \\\\ 0 & \\cos s \\end{pmatrix}.

    Between pixels it interpolates linearly; beyond the edge it repeats the nearest
    pixel (``fill_mode="nearest"``).

    Source: ``apply_affine_transform`` of Keras 2.13 to 3.5. There, ``width_shift``
    moves images up and down, by a share of their width, and ``height_shift`` sideways;
    and the centre of an image that is not square is not its own. Keras-Preprocessing
    1.1 has another centre, a pixel away.

    Args:
        rotation (float): In degrees. The default is 0.
        width_shift (float): As a share of the width. The default is 0.
        height_shift (float): As a share of the height. The default is 0.
        shear (float): In degrees. The default is 0.

    Raises:
        ValueError: If a number is negative or not finite.
    """

    def __init__(
        self,
        rotation: float = 0.0,
        width_shift: float = 0.0,
        height_shift: float = 0.0,
        shear: float = 0.0,
    ) -> None:
        for name, value in (
            *(("rotation", rotation), ("width_shift", width_shift)),
            *(("height_shift", height_shift), ("shear", shear)),
        ):
            check_number(name, value)
        self.rotation = rotation
        self.width_shift = width_shift
        self.height_shift = height_shift
        self.shear = shear

    def draw(self, shape: tuple[int, ...], rng: Any) -> tuple[float, ...]:
        """Draws the matrix of an image, row by row: a, b, c; d, e, f."""
        _, height, width = shape
        rotation, x, y, shear = (
            rng.uniform(-most, most) if most else 0.0
            for most in (
                math.radians(self.rotation),
                self.width_shift * width,
                self.height_shift * height,
                math.radians(self.shear),
            )
        )
        cos, sin = math.cos(rotation), math.sin(rotation)
        a, b = cos, -cos * math.sin(shear) - sin * math.cos(shear)
        d, e = sin, -sin * math.sin(shear) + cos * math.cos(shear)
        centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
        c = cos * x - sin * y + centre_x - a * centre_x - b * centre_y
        f = sin * x + cos * y + centre_y - d * centre_x - e * centre_y
        return a, b, c, d, e, f

    def apply(self, images: np.ndarray, draws: Sequence) -> np.ndarray:
        y = np.empty_like(images)
        # A few images at a time, so that intermediate results stay in the cache.
        step = max(1, (1 << 14) // math.prod(images.shape[2:]))
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            y[part] = _sample(images[part], np.array(draws[part]))
        return y


def _sample(images: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    n, n_channel, height, width = images.shape
    a, b, c, d, e, f = matrices.T[:, :, None, None]
    columns, rows = np.arange(width), np.arange(height)[:, None]
    x = (a * columns + b * rows + c).clip(0, width - 1)
    y = (d * columns + e * rows + f).clip(0, height - 1)
    left, top = x.astype(np.intp), y.astype(np.intp)
    dx, dy = (x - left).astype(np.float32), (y - top).astype(np.float32)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    flat = images.reshape(-1)
    channels = np.arange(n)[:, None] * n_channel + np.arange(n_channel)
    channels = channels[:, :, None, None] * (height * width)

    def row_of(y: np.ndarray) -> np.ndarray:
        first = flat.take(channels + (y * width + left)[:, None])
        second = flat.take(channels + (y * width + right)[:, None])
        return first + (second - first) * dx[:, None]

    above, below = row_of(top), row_of(bottom)
    return above + (below - above) * dy[:, None]


class QuarterTurn(Transform):
    """Turns square images by 0, 90, 180 or 270 degrees.

    An image that is not square raises a ValueError.

    Source: ``random_rotate`` of ChainerCV.
    """

    def draw(self, shape: tuple[int, ...], rng: Any) -> int:
        _, height, width = shape
        if height != width:
            raise ValueError(
                f"an image of {height}x{width} pixels is not of one shape with its "
                "quarter turn: crop it to a square"
            )
        return rng.randrange(4)

    def apply(self, images: np.ndarray, draws: Sequence) -> np.ndarray:
        turned = [
            np.rot90(x, k, axes=(1, 2)) for x, k in zip(images, draws, strict=True)
        ]
        return np.stack(turned)
