from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from chainer.datasets import TransformDataset

from chainer_revive.example_random import example_random


class Transform:
    """A random transform of images, which draws for one image and applies to many.

    It runs inside :class:`chainer.datasets.TransformDataset` and draws from
    :func:`~chainer_mmix.datasets.example_random`: one seed of :mod:`random` gives the
    same result with each of Chainer's iterators, with any number of workers, and after
    a resume. :class:`~chainer_mmix.training.DeviceBatches` draws example by example and
    transforms a batch at a time, with the same result.
    """

    def draw(self, shape: tuple[int, ...], rng: Any) -> Any:
        """Draws the random numbers for one image.

        Args:
            shape (tuple of int): The shape of the image, (C, H, W).
            rng (random.Random): The generator.

        Returns:
            The draw, in the form that :meth:`apply` takes.
        """
        raise NotImplementedError

    def apply(self, images: np.ndarray, draws: Sequence) -> np.ndarray:
        """Transforms images, each by its own draw.

        Args:
            images (numpy.ndarray): float32 array of shape (N, C, H, W), which is not
                modified.
            draws (sequence): The result of :meth:`draw` for each image.

        Returns:
            numpy.ndarray: The transformed images, of the same shape and dtype.
        """
        raise NotImplementedError

    def __call__(self, example: tuple) -> tuple[np.ndarray, Any]:
        """Transforms one example.

        Args:
            example (tuple): An image, floats of shape (C, H, W), and its label. What is
                not float32 is transformed in float32.

        Returns:
            tuple: A new image of the same shape and dtype, and the label.

        Raises:
            ValueError: If the image is not of a float dtype.
        """
        image, label = example
        if image.dtype.kind != "f":
            raise ValueError(
                f"images of dtype {image.dtype} cannot be augmented: make them "
                "float32, and bytes x.astype(numpy.float32) / 255"
            )
        draw = self.draw(image.shape, example_random())
        images = self.apply(image[None].astype(np.float32, copy=False), [draw])
        return images[0].astype(image.dtype, copy=False), label


class Compose(Transform):
    """Applies several transforms one after the other.

    Args:
        transforms (sequence of Transform): The transforms, in order.

    Raises:
        TypeError: If one is no Transform, such as a class.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        if not isinstance(transforms, Sequence) or not all(
            isinstance(transform, Transform) for transform in transforms
        ):
            raise TypeError(
                f"transforms must be a list such as [Flip()], not {transforms!r}; a "
                "function is for chainer.datasets.TransformDataset"
            )
        self.transforms = tuple(transforms)

    def draw(self, shape: tuple[int, ...], rng: Any) -> list:
        return [transform.draw(shape, rng) for transform in self.transforms]

    def apply(self, images: np.ndarray, draws: Sequence) -> np.ndarray:
        parts = zip(self.transforms, zip(*draws, strict=True), strict=True)
        for transform, drawn in parts:
            images = transform.apply(images, drawn)
        return images


def transformed(dataset: Sequence, transforms: Sequence[Transform]) -> Sequence:
    """Returns a dataset with transforms, which follow those that it already has.

    Args:
        dataset (sequence): Examples ``(image, label)``, the images float32 of shape
            (C, H, W).
        transforms (sequence of Transform): The transforms, in order.

    Returns:
        sequence: The transformed examples; ``dataset`` itself if ``transforms`` is
        empty.

    Raises:
        TypeError: If one is no Transform, such as a class.
    """
    if not transforms:
        return dataset
    transform = Compose(transforms)
    if isinstance(dataset, TransformDataset) and isinstance(
        dataset._transform, Transform
    ):
        transform = Compose([dataset._transform, *transform.transforms])
        dataset = dataset._dataset
    return TransformDataset(dataset, transform)
