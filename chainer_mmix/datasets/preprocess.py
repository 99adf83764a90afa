"""Converts files and arrays to inputs of a network, as for its validation set."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from chainer_mmix.datasets.npz import BRIGHTEST, as_inputs
from chainer_mmix.datasets.picture import (
    centre_crop,
    read_picture,
    shortest_for,
    to_array,
    to_rgb,
)

_N_LOOKED_AT = 16


def describe_inputs(examples: Sequence) -> dict[str, Any]:
    """Describes what a network is trained on, for the record of a run.

    Args:
        examples (sequence): Examples ``(image, label)`` to validate on.

    Returns:
        dict: ``input_shape``, without the batch axis, and ``input_range``, the least
        and the largest value of the first examples, of JSON types.
    """
    some = [examples[i][0] for i in range(min(len(examples), _N_LOOKED_AT))]
    low, high = min(x.min() for x in some), max(x.max() for x in some)
    return {
        "input_shape": list(some[0].shape),
        "input_range": [float(low), float(high)],
    }


@dataclass(frozen=True)
class Preprocess:
    """Converts pictures and arrays to inputs like those that a run validated on.

    Attributes:
        shape (tuple of int): The shape of one input, ``(C, H, W)`` for images; ``None``
            if it is not in the run's record.
        range (tuple of float): The least and the largest value of the run's inputs;
            ``None`` if they are not in the record.
        crops (bool): Whether the centre of a picture is cropped by
            :func:`~chainer_mmix.datasets.centre_crop`, for a run on pictures in
            folders. Otherwise, the largest centred part with the proportions of the
            images is resized to their size.
        invert (bool): Whether pictures are replaced by their negatives: a network that
            was trained on bright digits on black needs this for ink on paper.
    """

    shape: tuple[int, ...] | None
    range: tuple[float, float] | None = None
    crops: bool = False
    invert: bool = False

    @classmethod
    def of_record(cls, record: Mapping[str, Any], invert: bool = False) -> Preprocess:
        """Reads it from the record of a run.

        Args:
            record (mapping): The content of ``run.json``.
            invert (bool): See :class:`Preprocess`.
        """
        data, arguments = (record.get(key) or {} for key in ("data", "arguments"))
        crops = str(arguments.get("dataset")).startswith("folder:")
        size = arguments.get("size")
        default = [3, size, size] if crops and size else None
        shape, span = data.get("input_shape", default), data.get("input_range")
        return cls(
            None if shape is None else tuple(shape),
            None if span is None else tuple(span),
            crops,
            invert,
        )

    def check_pictures(self) -> None:
        """Checks that the network takes pictures.

        Raises:
            ValueError: If it does not, or nobody knows.
        """
        if self.shape is None:
            raise ValueError(
                "the run's record does not tell the shape of its images: give arrays "
                "(a file .npy or .npz); a program records it by RunRecord(..., "
                "data=datasets.describe_inputs(test)), and the command line does since "
                "a later version"
            )
        if len(self.shape) != 3 or self.shape[0] not in (1, 3):
            raise ValueError(
                f"the network takes inputs of shape {self.shape}, which no picture "
                "has: give arrays (a file .npy or .npz)"
            )
        if self.range is not None and not 0 <= self.range[0] <= self.range[1] <= 1:
            low, high = self.range
            raise ValueError(
                f"the network was trained on arrays with values from {low:.3g} to "
                f"{high:.3g}, and nothing tells how those were made of pictures: give "
                "arrays made in the same way (a file .npy or .npz)"
            )

    def picture(self, source: str | os.PathLike | Image.Image) -> np.ndarray:
        """Converts a picture to an input.

        Args:
            source (str, path-like or PIL.Image.Image): A file of any format that
                :func:`~chainer_mmix.datasets.read_picture` reads, or a picture.

        Returns:
            numpy.ndarray: float32, of the shape of an input, in [0, 1].

        Raises:
            TypeError: If it is something else.
            UnreadablePictureError: If it is not a picture, or is damaged.
            ValueError: If the network takes no pictures.
        """
        if not isinstance(source, (str, os.PathLike, Image.Image)):
            raise TypeError(
                f"a {type(source).__name__} is no input: give a picture, by its path "
                "or as a PIL.Image.Image, or a NumPy array, such as x of an example "
                "(x, t)"
            )
        self.check_pictures()
        assert self.shape is not None
        channels, height, width = self.shape
        if isinstance(source, Image.Image):
            image = to_rgb(source.copy())
        else:
            image = read_picture(source, shortest_for(height) if self.crops else None)
        if self.crops:
            image = centre_crop(image, height)
        elif image.size != (width, height):
            how = Image.Resampling.BILINEAR
            image = ImageOps.fit(image, (width, height), how)
        if self.invert:
            image = ImageOps.invert(image)
        array = to_array(image)
        if channels == 3:
            return array
        return to_array(image.convert("L").convert("RGB"))[:1]

    def array(self, x: np.ndarray, name: str = "x") -> np.ndarray:
        """Converts an array to inputs.

        Args:
            x (numpy.ndarray): A batch, in the form that
                :func:`~chainer_mmix.datasets.get_npz` reads: of shape (N, C, H, W),
                (N, H, W) or (N, D), bytes from 0 to 255 or floats, which stay as they
                are.
            name (str): What the errors call it.

        Returns:
            numpy.ndarray: float32, of shape (N, ...).

        Raises:
            ValueError: If it is not in this form, does not have the input shape, or has
                values as of bytes for a network that was trained on [0, 1].

        Images far outside of the range of that network's are taken after a warning.
        """
        x = as_inputs(x, name)
        if self.shape is not None and x.shape[1:] != self.shape:
            raise ValueError(
                f"{name} has inputs of shape {x.shape[1:]}, but the network takes "
                f"{self.shape}: give arrays of that shape"
            )
        low, high = self.range or (0, math.inf)
        if x.ndim == 4 and 0 <= low <= high <= 1 and x.max() > BRIGHTEST:
            raise ValueError(
                f"{name} has values up to {x.max():g}, but the network was trained on "
                f"values from {low:.3g} to {high:.3g}: divide them by 255, or give "
                "bytes (uint8)"
            )
        far = (high - low) / 2
        is_near = low - far <= x.min() and x.max() <= high + far
        if x.ndim == 4 and 0 <= low <= high <= 1 and not is_near:
            warnings.warn(
                f"arrays have values far outside of {low:.3g} to {high:.3g}, on which "
                "the network was trained: scale them in the same way",
                stacklevel=2,
            )
        return x
