"""im2col and col2im on channels-last images, in pieces that stay in the cache."""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

# Bytes of columns at a time: enough for an efficient product, and in the cache still
# when the product reads them.
CHUNK = 1 << 21

_local = threading.local()


class Axis(NamedTuple):
    """How a kernel steps along one axis of an image.

    Taps (elements of the kernel) that meet nothing but padding are left out.

    Attributes:
        size (int): Length of the image.
        out (int): Number of steps.
        first (int): The first tap of the kernel that counts.
        taps (int): The number of taps from there that count, at least one.
        stride (int): From step to step.
        dilation (int): From tap to tap.
        pad (int): Padding before the image as the first tap sees it; negative if it
            begins within the image.
    """

    size: int
    out: int
    first: int
    taps: int
    stride: int
    dilation: int
    pad: int

    @classmethod
    @functools.lru_cache(1024, typed=True)  # 2.0, which fails, must not be kept for 2
    def of(cls, size: int, out: int, kernel: int, stride: int, dilation: int, pad: int):
        numbers = size, out, kernel, stride, dilation, pad
        size, out, kernel, stride, dilation, pad = map(operator.index, numbers)
        first, last = 0, kernel
        while first + 1 < last and first * dilation + (out - 1) * stride < pad:
            first += 1
        while first + 1 < last and (last - 1) * dilation >= pad + size:
            last -= 1
        pad -= first * dilation
        return cls(size, out, first, last - first, stride, dilation, pad)

    @classmethod
    def each(cls, size: int):
        """Each step sees one element of the image, its own."""
        return cls(size, size, first=0, taps=1, stride=1, dilation=1, pad=0)

    @property
    def trivial(self) -> bool:
        """Whether each step sees one element of the image, its own."""
        return self.taps == self.stride == 1 and self.pad == 0 and self.out == self.size

    @property
    def kernel(self) -> slice:
        """The taps that count, as a slice of the kernel."""
        return slice(self.first, self.first + self.taps)

    @property
    def extent(self) -> int:
        """The length that all steps together see, padding included."""
        return (self.out - 1) * self.stride + (self.taps - 1) * self.dilation + 1

    def rows(self, steps: slice) -> Axis:
        """The same with some of the steps only."""
        start, stop = steps.start, steps.stop
        return self._replace(out=stop - start, pad=self.pad - start * self.stride)


def buffer(name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
    """Returns an array with arbitrary contents that this thread uses again and again.

    It is valid until this thread asks for the same ``name`` again.
    """
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for n in shape:
        size *= n
    memory = getattr(_local, name, None)
    if memory is None or len(memory) < size:
        memory = np.empty(size, np.uint8)
        setattr(_local, name, memory)
    return memory[:size].view(dtype).reshape(shape)


def chunks(n: int, height: int, row: int, limit: int) -> Iterator[tuple[slice, slice]]:
    """Cuts ``n`` images of ``height`` rows, ``row`` bytes each, into even pieces.

    Yields:
        The images and the rows of a piece of at most ``limit`` bytes, or of one row:
        some rows of one image or all rows of some images.
    """
    images = max(1, limit // (height * row))
    images = -(-n // -(-n // images))
    rows = height if images > 1 else min(height, max(1, limit // row))
    rows = -(-height // -(-height // rows))
    for i in range(0, n, images):
        for j in range(0, height, rows):
            yield slice(i, min(i + images, n)), slice(j, min(j + rows, height))


def im2col(x: np.ndarray, y_axis: Axis, x_axis: Axis) -> np.ndarray:
    """Returns what the kernel sees at each step, one step a row, in a buffer.

    Args:
        x (array): Images of shape (N, H, W, C).
        y_axis, x_axis: How the kernel steps along H and W.

    Returns:
        array: Shape (N * out_h * out_w, taps_h * taps_w * C).
    """
    n, _, _, c = x.shape
    shape = (n, y_axis.out, x_axis.out, y_axis.taps, x_axis.taps, c)
    col = buffer("columns", shape, x.dtype)
    x = frame(x, y_axis, x_axis, 0)
    batch, height, width, channel = x.strides
    strides = (
        batch,
        height * y_axis.stride,
        width * x_axis.stride,
        height * y_axis.dilation,
        width * x_axis.dilation,
        channel,
    )
    np.copyto(col, as_strided(x, shape, strides))
    return col.reshape(n * y_axis.out * x_axis.out, -1)


def frame(x: np.ndarray, y_axis: Axis, x_axis: Axis, padding: float) -> np.ndarray:
    """Returns what the kernel sees of images (N, H, W, C), with padding around it.

    The result is a view, or a buffer of shape (N, y_axis.extent, x_axis.extent, C).
    """
    shape, inner, outer = [], [], []
    for axis in (y_axis, x_axis):
        start = max(0, -axis.pad)
        stop = max(start, min(axis.size, axis.extent - axis.pad))
        shape.append(axis.extent)
        inner.append(slice(start, stop))
        outer.append(slice(start + axis.pad, stop + axis.pad))
    seen = x[:, inner[0], inner[1]]
    if seen.shape[1:3] == tuple(shape):
        return seen
    framed = buffer("frame", (len(x), *shape, x.shape[3]), x.dtype)
    framed.fill(padding)
    framed[:, outer[0], outer[1]] = seen
    return framed


def col2im(col: np.ndarray, x: np.ndarray, y_axis: Axis, x_axis: Axis) -> None:
    """Adds each row of columns to the elements of ``x`` that :func:`im2col` reads.

    Args:
        col (array): Shape (N * out_h * out_w, taps_h * taps_w * C).
        x (array): Images of shape (N, H, W, C), added to.
        y_axis, x_axis: How the kernel steps along H and W.
    """
    n, _, _, c = x.shape
    col = col.reshape(n, y_axis.out, x_axis.out, y_axis.taps, x_axis.taps, c)
    for i in range(y_axis.taps):
        steps_y, image_y = meet(y_axis, i)
        for j in range(x_axis.taps):
            steps_x, image_x = meet(x_axis, j)
            x[:, image_y, image_x] += col[:, steps_y, steps_x, i, j]


def meet(axis: Axis, tap: int) -> tuple[slice, slice]:
    """Returns the steps at which a tap meets the image, and the elements it meets."""
    offset = tap * axis.dilation - axis.pad  # of the first step
    start = max(0, -(offset // axis.stride))
    stop = min(axis.out, (axis.size - 1 - offset) // axis.stride + 1)
    if start >= stop:
        return slice(0), slice(0)
    begin, end = (offset + step * axis.stride for step in (start, stop - 1))
    return slice(start, stop), slice(begin, end + 1, axis.stride)
