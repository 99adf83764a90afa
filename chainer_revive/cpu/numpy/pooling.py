"""Pooling tap by tap, with NumPy, of images with channels last, (N, H, W, C).

``axes`` say how the window steps along H and W.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chainer_revive.cpu.axis import Axis, meet
from chainer_revive.cpu.numpy.columns import chunks, frame

_PIECE = 1 << 18  # bytes of output that stay in the cache with all that belongs to it


def max_forward(x, y, indexes, axes: tuple[Axis, Axis]) -> None:
    """Writes the largest of each window to y, and which it is to indexes (uint8)."""
    for images, rows in _pieces(y):
        y_axis, x_axis = axes[0].rows(rows), axes[1]
        seen = frame(x[images], y_axis, x_axis, -np.inf)
        taps = [
            seen[:, i :: y_axis.stride, j :: x_axis.stride][
                :, : y_axis.out, : x_axis.out
            ]
            for i in range(y_axis.taps)
            for j in range(x_axis.taps)
        ]
        largest, first = y[images, rows], indexes[images, rows]
        largest[...] = taps[0]
        for tap in taps[1:]:
            np.maximum(largest, tap, out=largest)
        # Counts the taps before the first that is the largest.
        first.fill(0)
        for tap in reversed(taps[:-1]):
            first += 1
            first *= (tap != largest).view(np.uint8)


def max_backward(gy, indexes, gx, axes: tuple[Axis, Axis]) -> None:
    gx.fill(0)
    bits = np.dtype(f"i{gy.itemsize}")
    for images, rows in _pieces(gy):
        y_axis, x_axis = axes[0].rows(rows), axes[1]
        for tap, (steps, elements) in enumerate(_taps(images, y_axis, x_axis)):
            # All bits where the tap was the largest, no bit elsewhere.
            mask = (indexes[images, rows][steps] == tap).view(np.int8)
            np.negative(mask, out=mask)
            part = np.bitwise_and(gy[images, rows][steps].view(bits), mask)
            gx[elements] += part.view(gy.dtype)


def average_forward(x, y, axes: tuple[Axis, Axis]) -> None:
    for images, rows in _pieces(y):
        # Of many terms, float32 would lose much.
        sums = np.zeros(y[images, rows].shape, np.float64)
        for steps, elements in _taps(images, axes[0].rows(rows), axes[1]):
            sums[steps] += x[elements]
        np.divide(
            sums, axes[0].taps * axes[1].taps, y[images, rows], casting="same_kind"
        )


def average_backward(gy, gx, axes: tuple[Axis, Axis]) -> None:
    gx.fill(0)
    gy = gy / gy.dtype.type(axes[0].taps * axes[1].taps)
    for images, rows in _pieces(gy):
        for steps, elements in _taps(images, axes[0].rows(rows), axes[1]):
            gx[elements] += gy[images, rows][steps]


def _pieces(y: np.ndarray) -> Iterator[tuple[slice, slice]]:
    row = y.shape[2] * y.shape[3] * y.itemsize
    return chunks(len(y), y.shape[1], row, _PIECE)


def _taps(images: slice, y_axis: Axis, x_axis: Axis):
    """Yields for each tap the steps at which it meets the image, and the elements."""
    for i in range(y_axis.taps):
        steps_y, image_y = meet(y_axis, i)
        for j in range(x_axis.taps):
            steps_x, image_x = meet(x_axis, j)
            yield (slice(None), steps_y, steps_x), (images, image_y, image_x)
