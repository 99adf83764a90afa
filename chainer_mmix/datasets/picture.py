"""Pictures from files, as a person sees them, and the crops that networks are given."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from chainer_revive.example_random import example_random

# Pillow calls other programs for the first two, and has no decoder for the others.
_NO_PICTURES = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
# Where a JPEG may say how it lies.
_ORIENTS = {"exif", "xmp"}
# The part of the shorter side that ImageNet's centre crop keeps: 224 of 256.
_CENTRE_SHARE = 224 / 256


class UnreadablePictureError(OSError):
    """A file that holds no picture, or a damaged one. It names the file.

    Attributes:
        path (str): The file.
        reason (str): What is wrong with it.
    """

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{path} is no picture that can be read ({reason})")
        self.path = os.fspath(path)
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.path, self.reason)


@functools.cache
def picture_formats() -> tuple[str, ...]:
    """Returns the names of the formats that pictures may have."""
    Image.init()
    names = [name for name in Image.OPEN if name not in _NO_PICTURES]
    return tuple(sorted(names, key=lambda name: name != "JPEG"))  # tried in order


def read_picture(path: str | os.PathLike, shortest: float | None = None) -> Image.Image:
    """Reads a picture as a viewer shows it.

    It is rotated by its EXIF tag. Transparency is shown on white. 16-bit values become
    v / 257, so that white stays white. Only the first frame of an animation is read.
    Colour profiles are ignored.

    Args:
        path (str or path-like): A file of any format that Pillow reads by itself.
        shortest (float): A JPEG is decoded at a half, a quarter or an eighth of its
            size, which is faster, if its shorter side keeps at least this number of
            pixels. The default is ``None``: at its full size.

    Returns:
        PIL.Image.Image: The picture in mode RGB, with 8 bits per channel.

    Raises:
        UnreadablePictureError: If it is damaged, has more pixels than
            ``PIL.Image.MAX_IMAGE_PIXELS``, or is in a format that does not define
            white.
    """
    try:
        with Image.open(path, formats=picture_formats()) as image:
            most = Image.MAX_IMAGE_PIXELS
            if most is not None and image.width * image.height > most:
                raise Image.DecompressionBombError
            if shortest is not None:
                share = shortest / min(image.size)
                # Nothing happens to other formats.
                width, height = (max(1, math.ceil(n * share)) for n in image.size)
                image.draft(None, (width, height))
            return to_rgb(image)
    except MemoryError:
        raise
    except Exception as e:  # Pillow's readers raise many kinds.
        reason = str(e) or type(e).__name__
        if isinstance(e, Image.UnidentifiedImageError):
            reason = "of no known format"
        elif isinstance(e, Image.DecompressionBombError):
            reason = f"over {Image.MAX_IMAGE_PIXELS} pixels, PIL.Image.MAX_IMAGE_PIXELS"
        elif isinstance(e, OSError) and e.strerror:
            reason = e.strerror
        raise UnreadablePictureError(path, reason) from e


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a picture to mode RGB, as :func:`read_picture` does.

    Args:
        image (PIL.Image.Image): A picture in any mode, which may be rotated in place.

    Raises:
        ValueError: If its format does not define white.
    """
    image.load()
    if (
        image.format == "JPEG"
        and image.mode == "RGB"
        and not _ORIENTS & set(image.info)
    ):
        return image  # which is faster than to find out that nothing is to be done
    try:
        image.getexif()
    except Exception:  # A damaged EXIF block does not say how the picture lies.
        pass
    else:
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in "IF":
        return _to_8_bits(image).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
        return ImageCms.applyTransform(image, transform) or image
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(
            Image.new("RGBA", rgba.size, "white"), rgba
        ).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    # Pillow makes 16 bits of what is more than 8 in a PNM, and calls them I.
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        n_bit, white_is_zero = 16, False
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            # Pillow heeds these for 8 bits only.
            n_bit, white_is_zero = image.tag_v2[258][0], image.tag_v2[262] == 0
        grey = np.rint(values * (255 / (2**n_bit - 1)))
        if white_is_zero:
            grey = 255 - grey
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
    elif image.mode == "F" and values.min() >= 0 and not 0 < values.max() <= 1:
        grey = np.rint(values)
    else:
        grey = np.array([np.nan])
    if not grey.max() <= 255:
        raise ValueError(
            f"its values, {values.min():g} to {values.max():g} in {image.mode!r}, do "
            "not say what is white; save it with 8 or 16 bits"
        )
    return Image.fromarray(grey.astype(np.uint8))


_keeps_bytes = ContextVar("_keeps_bytes", default=False)


@contextlib.contextmanager
def keeping_bytes() -> Iterator[None]:
    """Has :func:`to_array` leave bytes as they are, to be divided by 255 later."""
    token = _keeps_bytes.set(True)
    try:
        yield
    finally:
        _keeps_bytes.reset(token)


def to_array(image: Image.Image) -> np.ndarray:
    """Makes an array of an RGB picture: float32 of shape (3, H, W) in [0, 1]."""
    array = np.asarray(image).transpose(2, 0, 1)
    if _keeps_bytes.get():
        return array
    array = array.astype(np.float32, order="C")
    array /= 255
    return array


def shortest_for(size: int) -> int:
    """Returns the shorter side of a picture of which ``size`` pixels are cropped."""
    return round(size / _CENTRE_SHARE)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Resizes a picture and crops its centre, as in evaluation on ImageNet.

    The shorter side is resized to ``round(size * 256 / 224)`` pixels, and the middle
    ``size`` by ``size`` pixels are kept. A picture of the right size stays as it is.

    Args:
        image (PIL.Image.Image): A picture.
        size (int): Height and width of the result.

    Returns:
        PIL.Image.Image: The crop, resized by an antialiased bilinear filter.
    """
    width, height = image.size
    if width == height == size:
        return image
    scale = shortest_for(size) / min(width, height)
    # Resized and cropped in one go, so that no panorama is enlarged as a whole.
    sizes = round(width * scale), round(height * scale)
    left, top = ((whole - size) // 2 for whole in sizes)
    x, y = width / sizes[0], height / sizes[1]
    box = left * x, top * y, (left + size) * x, (top + size) * y
    return image.resize((size, size), Image.Resampling.BILINEAR, box)


@dataclass(frozen=True)
class RandomResizedCrop:
    """Crops a random part of a picture and resizes it, as in training on ImageNet.

    Source: `Going deeper with convolutions <https://arxiv.org/abs/1409.4842>`_,
    section 6, with as many attempts as torchvision's class of the same name.

    Attributes:
        size (int): Height and width of the result.
        scale (tuple of float): Least and largest share of the area that is kept. The
            default is (0.08, 1).
        ratio (tuple of float): Least and largest ratio of width to height of the part.
            The default is (3/4, 4/3).
        flip (bool): Whether half of the pictures are mirrored left to right. The
            default is ``True``.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True

    @property
    def shortest(self) -> float:
        """The shorter side of pictures of which no part needs to be enlarged."""
        least, most = self.ratio
        return self.size / math.sqrt(self.scale[0] * min(least, 1 / most))

    def __call__(self, example: tuple) -> tuple[np.ndarray, np.int32]:
        """Transforms one example.

        Its numbers come from :func:`~chainer_mmix.datasets.example_random`.

        Args:
            example (tuple): A PIL.Image.Image and its label.

        Returns:
            tuple: The crop, float32 of shape (3, size, size) in [0, 1], and the label.
        """
        image, label = example
        return to_array(self.crop(image, example_random())), label

    def centre(self, example: tuple) -> tuple[np.ndarray, np.int32]:
        """Transforms one example as in evaluation, by :func:`centre_crop`."""
        image, label = example
        return to_array(centre_crop(image, self.size)), label

    def crop(self, image: Image.Image, rng) -> Image.Image:
        """Transforms one picture, with random numbers from ``rng``.

        Args:
            image (PIL.Image.Image): A picture.
            rng (random.Random): Where the numbers come from.

        Returns:
            PIL.Image.Image: The crop.
        """
        box = self._draw_box(*image.size, rng)
        size = (self.size, self.size)
        crop = image.resize(size, Image.Resampling.BILINEAR, box)
        return ImageOps.mirror(crop) if self.flip and rng.random() < 0.5 else crop

    def _draw_box(self, width: int, height: int, rng) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = width * height * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(*map(math.log, self.ratio)))
            w = round(math.sqrt(area * ratio))
            h = round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = rng.randint(0, width - w), rng.randint(0, height - h)
                return left, top, left + w, top + h
        # No part of such a shape fits well: the most of the centre that is allowed.
        least, most = self.ratio
        w = min(width, max(1, round(height * most)))
        h = min(height, max(1, round(width / least)))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h
