from __future__ import annotations

from typing import NamedTuple

import chainer
import numpy as np
from chainercv import transforms

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


class Augment:
    """Random crop, small rotation and flip of a training example.

    It runs inside :class:`chainer.datasets.TransformDataset` and draws from
    :func:`~chainer_mmix.datasets.example_random`: one seed of :mod:`random` gives one
    result, whichever of Chainer's iterators reads the examples and with any number of
    workers. The iterator saves what a resumed run needs; until it has read an example,
    the seed is the state of :mod:`random`, which
    :class:`~chainer_mmix.training.extensions.RandomState` saves.

    Args:
        padding (int): Pixels of zeros added on each side before the image is cropped
            to its size again at a random place.
        angle (float): Largest rotation to either side, in degrees.
        flip (bool): Whether half of the images are mirrored left to right.
    """

    def __init__(self, padding: int, angle: float = 10.0, flip: bool = False) -> None:
        self.padding = padding
        self.angle = angle
        self.flip = flip

    def draw(self) -> AugmentDraw:
        """Draws what to do to the next example."""
        rng = example_random()
        return AugmentDraw(
            rng.uniform(-self.angle, self.angle),
            rng.randint(0, 2 * self.padding),
            rng.randint(0, 2 * self.padding),
            self.flip and rng.choice([True, False]),
        )

    def __call__(self, example: tuple) -> tuple[np.ndarray, np.int32]:
        """Transforms one example.

        Args:
            example (tuple): An image, float32 of shape (C, H, W), and its label.

        Returns:
            tuple: A new image of the same shape and dtype, and the label.
        """
        image, label = example
        _, height, width = image.shape
        angle, top, left, flip = self.draw()
        # Without this, the result depends on whether OpenCV is installed.
        with chainer.using_config("cv_rotate_backend", "PIL"):
            image = transforms.rotate(image, angle, expand=False)
        side = (self.padding, self.padding)
        image = np.pad(image, ((0, 0), side, side))
        image = image[:, top : top + height, left : left + width]
        return transforms.flip(image, x_flip=flip, copy=True), label
