from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from chainer.datasets import TransformDataset

from chainer_revive.example_random import example_random


class Transform:
    """Changes images at random: draws for one, and does it to one or to many.

    It runs inside :class:`chainer.datasets.TransformDataset` and draws from
    :func:`~chainer_mmix.datasets.example_random`: one seed of :mod:`random` gives one
    result, whichever of Chainer's iterators reads the examples, with any number of
    workers, and after a resume. :class:`~chainer_mmix.training.DeviceBatches` draws
    example by example and changes a batch at a time; the result is the same.
    """

    def draw(self, shape: tuple[int, ...], rng: Any) -> Any:
        """Draws what to do to an image.

        Args:
            shape (tuple of int): The shape of the image, (C, H, W).
            rng (random.Random): Where the numbers come from.

        Returns:
            What :meth:`apply` takes.
        """
        raise NotImplementedError

    def apply(self, images: np.ndarray, draws: Sequence) -> np.ndarray:
        """Changes images. Each depends on its own draw alone.

        Args:
            images (numpy.ndarray): float32 array of shape (N, C, H, W). It is left as
                it is.
            draws (sequence): What :meth:`draw` returned for each.

        Returns:
            numpy.ndarray: The changed images, of the same shape and dtype.
        """
        raise NotImplementedError

    def __call__(self, example: tuple) -> tuple[np.ndarray, Any]:
        """Changes one example.

        Args:
            example (tuple): An image, float32 of shape (C, H, W), and its label.

        Returns:
            tuple: A new image of the same shape and dtype, and the label.
        """
        image, label = example
        draw = self.draw(image.shape, example_random())
        return self.apply(image[None], [draw])[0], label


class Compose(Transform):
    """Changes images by one transform after the other.

    Args:
        transforms (sequence of Transform): The transforms, in order.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = tuple(transforms)

    def draw(self, shape: tuple[int, ...], rng: Any) -> list:
        return [transform.draw(shape, rng) for transform in self.transforms]

    def apply(self, images: np.ndarray, draws: Sequence) -> np.ndarray:
        parts = zip(self.transforms, zip(*draws, strict=True), strict=True)
        for transform, drawn in parts:
            images = transform.apply(images, drawn)
        return images


def transformed(dataset: Sequence, transforms: Sequence[Transform]) -> Sequence:
    """Returns a dataset whose images are changed, after what is done to them already.

    Args:
        dataset (sequence): Examples ``(image, label)``, the images float32 of shape
            (C, H, W).
        transforms (sequence of Transform): The transforms, in order.

    Returns:
        sequence: ``dataset`` if there are no transforms.
    """
    if not transforms:
        return dataset
    if isinstance(dataset, TransformDataset) and isinstance(
        dataset._transform, Transform
    ):
        transforms = [dataset._transform, *transforms]
        dataset = dataset._dataset
    return TransformDataset(dataset, Compose(transforms))
