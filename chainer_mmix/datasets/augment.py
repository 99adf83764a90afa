from __future__ import annotations

import random

import chainer
import numpy as np
from chainercv import transforms


class Augment:
    """Random crop, small rotation and flip of a training example.

    It runs inside :class:`chainer.datasets.TransformDataset` and draws from
    :mod:`random`, as :mod:`chainercv.transforms` does; seed that, and save its state
    with :class:`~chainer_mmix.training.extensions.RandomState`.

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

    def __call__(self, example: tuple) -> tuple[np.ndarray, np.int32]:
        """Transforms one example.

        Args:
            example (tuple): An image, float32 of shape (C, H, W), and its label.

        Returns:
            tuple: A new image of the same shape and dtype, and the label.
        """
        image, label = example
        size = image.shape[1:]
        angle = random.uniform(-self.angle, self.angle)
        # Without this, the result depends on whether OpenCV is installed.
        with chainer.using_config("cv_rotate_backend", "PIL"):
            image = transforms.rotate(image, angle, expand=False)
        side = (self.padding, self.padding)
        image = transforms.random_crop(np.pad(image, ((0, 0), side, side)), size)
        return transforms.random_flip(image, x_random=self.flip, copy=True), label
