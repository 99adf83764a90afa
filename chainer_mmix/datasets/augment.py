from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import chainer
import numpy as np
from chainercv import transforms

from chainer_mmix.checks import check_number, check_whole
from chainer_mmix.datasets.transforms import Transform
from chainer_revive.example_random import example_random


class AugmentDraw(NamedTuple):
    """The random choices of :class:`Augment` for one example.

    Attributes:
        angle (float): Degrees by which the image is rotated, counter-clockwise.
        top, left (int): Where the crop begins in the padded image.
        flip (bool): Whether the crop is mirrored left to right.
    """

    angle: float
    top: int
    left: int
    flip: bool


class Augment(Transform):
    """Random crop, small rotation and flip of a training example.

    It draws as every :class:`~chainer_mmix.datasets.Transform`. The iterator saves what
    a resumed run needs; until it has read an example, the seed is the state of
    :mod:`random`, which :class:`~chainer_mmix.training.extensions.RandomState` saves.

    Args:
        padding (int): Pixels of zeros added on each side before the image is cropped
            to its size again at a random place.
        angle (float): Largest rotation to either side, in degrees. The default is 10.
        flip (bool): Whether half of the images are mirrored left to right. The default
            is ``False``.

    Raises:
        ValueError: If ``padding`` or ``angle`` is negative or no such number.
    """

    def __init__(self, padding: int, angle: float = 10.0, flip: bool = False) -> None:
        check_whole("padding", padding, 0)
        check_number("angle", angle)
        self.padding = padding
        self.angle = angle
        self.flip = flip

    def draw(self, shape: tuple[int, ...] = (), rng: Any = None) -> AugmentDraw:
        """Draws what to do to an example; by default to the one that is being read."""
        rng = rng or example_random()
        return AugmentDraw(
            rng.uniform(-self.angle, self.angle),
            rng.randint(0, 2 * self.padding),
            rng.randint(0, 2 * self.padding),
            self.flip and rng.choice([True, False]),
        )

    def apply(self, images: np.ndarray, draws: Sequence[AugmentDraw]) -> np.ndarray:
        changed = [self._change(x, draw) for x, draw in zip(images, draws, strict=True)]
        return np.stack(changed)

    def _change(self, image: np.ndarray, draw: AugmentDraw) -> np.ndarray:
        _, height, width = image.shape
        # Without this, the result depends on whether OpenCV is installed.
        with chainer.using_config("cv_rotate_backend", "PIL"):
            image = transforms.rotate(image, draw.angle, expand=False)
        side = (self.padding, self.padding)
        image = np.pad(image, ((0, 0), side, side))
        image = image[:, draw.top : draw.top + height, draw.left : draw.left + width]
        return transforms.flip(image, x_flip=draw.flip)
