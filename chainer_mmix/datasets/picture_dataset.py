from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import chainer
import numpy as np
from chainercv.chainer_experimental.datasets.sliceable import GetterDataset
from numpy.typing import ArrayLike
from PIL import Image

from chainer_mmix.datasets.picture import (
    UnreadablePictureError,
    centre_crop,
    keeping_bytes,
    read_picture,
    shortest_for,
    to_array,
)


class PictureDataset(GetterDataset):
    """Pictures that are read from files when they are asked for.

    An example is an image, float32 of shape (3, size, size) in [0, 1], and its label,
    an int32.

    It has the attributes of
    :class:`chainercv.datasets.DirectoryParsingLabelDataset`, which takes hidden folders
    for classes, knows only five formats, and misreads pictures that are not 8-bit RGB.

    Args:
        img_paths (sequence of str): The files.
        labels (sequence of int): The label of each picture.
        class_names (sequence of str): The name of each label.
        size (int): Height and width of the images, see :func:`centre_crop`; ``None``
            for whole pictures, each a PIL.Image.Image in mode RGB.
        skip_corrupt (bool): Whether to replace a picture that cannot be read by the
            next one of its class, with a warning. The default is ``False``.
        shortest (float): For whole pictures, see :func:`read_picture`. The default is
            ``None``.

    Attributes:
        img_paths, class_names: As given.
        labels (numpy.ndarray): int32, of shape (N,).
    """

    def __init__(
        self,
        img_paths: Sequence[str],
        labels: ArrayLike,
        class_names: Sequence[str],
        size: int | None,
        skip_corrupt: bool = False,
        shortest: float | None = None,
    ) -> None:
        super().__init__()
        self.img_paths = list(map(os.fspath, img_paths))
        self.labels = np.asarray(labels, np.int32)
        self.class_names = tuple(class_names)
        self.size = size
        self.skip_corrupt = skip_corrupt
        self.shortest = shortest if size is None else shortest_for(size)
        self.add_getter("img", self._get_image)
        self.add_getter("label", self.labels.__getitem__)

    def __len__(self) -> int:
        return len(self.img_paths)

    def take(self, indices: np.ndarray) -> PictureDataset:
        """Returns the dataset of some of the pictures."""
        paths = [self.img_paths[i] for i in indices]
        return PictureDataset(
            *(paths, self.labels[indices], self.class_names, self.size),
            *(self.skip_corrupt, self.shortest),
        )

    def whole(self, shortest: float | None = None) -> PictureDataset:
        """Returns the dataset of the whole pictures, for random crops.

        Args:
            shortest (float): See :func:`read_picture`. The default is ``None``.
        """
        return PictureDataset(
            *(self.img_paths, self.labels, self.class_names, None),
            *(self.skip_corrupt, shortest),
        )

    def _get_image(self, i: int) -> np.ndarray | Image.Image:
        image = self._read(i)
        if self.size is None:
            return image
        return to_array(centre_crop(image, self.size))

    def _read(self, i: int) -> Image.Image:
        try:
            return read_picture(self.img_paths[i], self.shortest)
        except UnreadablePictureError as e:
            if not self.skip_corrupt:
                raise
            error = e
        same = np.flatnonzero(self.labels == self.labels[i])
        for j in np.roll(same, -np.searchsorted(same, i % len(self)))[1:]:
            try:
                image = read_picture(self.img_paths[j], self.shortest)
            except UnreadablePictureError:
                continue
            warnings.warn(f"{error}: {self.img_paths[j]} takes its place", stacklevel=2)
            return image
        raise error


class AsBytes(chainer.dataset.DatasetMixin):
    """Examples of pictures whose images are uint8, 0 to 255."""

    def __init__(self, examples: Sequence) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def get_example(self, i: int) -> tuple:
        with keeping_bytes():
            return self._examples[i]
