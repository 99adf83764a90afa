"""Augments a whole batch on its device, as Augment does one image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from chainer import backend
from chainer.backends import cuda

from chainer_mmix.datasets.augment import AugmentDraw
from chainer_revive import registry

_N_COLUMN = 8  # of the table


def augment_batch(images, table, dtype):
    """Selects images from an array and augments them.

    On a GPU it is one kernel. The result equals Pillow's up to the rounding of float32.

    Source: ``Image.rotate`` and ``bilinear_filter32F`` of Pillow.

    Args:
        images (array): float32 array of shape (N, C, H, W), NumPy or CuPy.
        table (array): The result of :func:`make_table` for B images, on their device.
        dtype (numpy.dtype): The dtype of the result.

    Returns:
        array: Of shape (B, C, H, W).
    """
    xp, shape = backend.get_array_module(images), images.shape[1:]
    if xp is not np:
        registry.decide()  # if it waits for the first call on a GPU, this may be it
        if not registry.is_left_off("augment"):
            y = xp.empty((len(table), *shape), dtype)
            # Products must not be fused with sums, or a GPU rounds differently.
            options = ("--fmad=false",)
            kernel = cuda.elementwise(*kernel_source(*shape), options=options)
            return kernel(images, table, y)
    # A few images at a time, so that intermediate results stay in a CPU's cache.
    n = max(1, (1 << 14) // math.prod(shape[1:])) if xp is np else len(table)
    parts = (table[start : start + n] for start in range(0, len(table), n))
    y = xp.concatenate([_augment_plainly(xp, images, part) for part in parts])
    return y.astype(dtype, copy=False)


def make_table(
    indices: Sequence[int],
    draws: Sequence[AugmentDraw],
    padding: int,
    size: tuple[int, int],
) -> np.ndarray:
    """Packs the arguments of :func:`augment_batch` into one array, for one transfer.

    Args:
        indices (sequence of int): Which images to take.
        draws (sequence of AugmentDraw): What to do to each.
        padding (int): The padding of the Augment that made the draws.
        size (tuple of int): Height and width of the images.

    Returns:
        numpy.ndarray: float64 array of shape (B, 8). Its columns are the index; the
        offsets of the crop, y and x; 1 for a flip, else 0; and a, b, c, f of the
        rotation, which takes the pixel at (x, y) from
        (a x + b y + c, -b x + a y + f).
    """
    height, width = size
    table = np.empty((len(indices), _N_COLUMN))
    for row, index, draw in zip(table, indices, draws, strict=True):
        # As in Pillow, to the last digit.
        angle = -math.radians(draw.angle % 360.0)
        a, b = round(math.cos(angle), 15), round(math.sin(angle), 15)
        c = a * -(width / 2) + b * -(height / 2) + width / 2
        f = -b * -(width / 2) + a * -(height / 2) + height / 2
        row[:] = (
            *(index, draw.top - padding, draw.left - padding, draw.flip),
            *(a, b, c, f),
        )
    return table


def _augment_plainly(xp, images, table):
    _, n_channel, height, width = images.shape
    index, top, left, flip, a, b, c, f = table.T[:, :, None, None]
    x, y = xp.arange(width), xp.arange(height)[:, None]
    x = xp.where(flip != 0, width - 1 - x, x) + left
    y = y + top
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x + 0.5, y + 0.5
    x, y = a * x + b * y + c, -b * x + a * y + f
    is_inside = is_inside & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x - 0.5, y - 0.5
    left, top = xp.floor(x), xp.floor(y)
    dx, dy = x - left, y - top

    def pixels(y, x):
        y = y.clip(0, height - 1)
        x = x.clip(0, width - 1)
        at = ((index * (n_channel * height) + y) * width + x).astype(np.intp)[:, None]
        channels = xp.arange(n_channel)[:, None, None] * (height * width)
        return images.ravel().take(at + channels)

    def between(p, q, share):
        return p + (q - p) * share[:, None]

    above = between(pixels(top, left), pixels(top, left + 1), dx)
    below = between(pixels(top + 1, left), pixels(top + 1, left + 1), dx)
    image = between(above, below, dy)
    return xp.where(is_inside[:, None], image, 0).astype(np.float32)


def kernel_source(n_channel: int, height: int, width: int) -> tuple[str, str, str, str]:
    """Returns the arguments that make the kernel of an ElementwiseKernel.

    The sizes are compiled in, since dividing by constants is cheap.
    """
    area = height * width
    operation = f"""
        const ptrdiff_t n = i / {n_channel * area};
        const ptrdiff_t row = {_N_COLUMN} * n;
        const ptrdiff_t column = i % {width};
        double x = (table[row + 3] != 0 ? {width - 1} - column : column)
            + table[row + 2];
        double y = i / {width} % {height} + table[row + 1];
        bool is_inside = x >= 0 && x < {width} && y >= 0 && y < {height};
        x += 0.5;
        y += 0.5;
        const double a = table[row + 4], b = table[row + 5];
        double from_x = a * x + b * y + table[row + 6];
        double from_y = -b * x + a * y + table[row + 7];
        is_inside = is_inside && from_x >= 0 && from_x < {width}
            && from_y >= 0 && from_y < {height};
        float value = 0;
        if (is_inside) {{
            from_x -= 0.5;
            from_y -= 0.5;
            const int left = static_cast<int>(floor(from_x));
            const int top = static_cast<int>(floor(from_y));
            const double dx = from_x - left, dy = from_y - top;
            const int x0 = left < 0 ? 0 : left;
            const int x1 = left + 1 < {width} ? left + 1 : left;
            const int y0 = top < 0 ? 0 : top;
            const int y1 = top + 1 < {height} ? top + 1 : top;
            const ptrdiff_t image = static_cast<ptrdiff_t>(table[row])
                * {n_channel * area} + i / {area} % {n_channel} * {area};
            const ptrdiff_t line0 = image + y0 * {width};
            const ptrdiff_t line1 = image + y1 * {width};
            const float p = images[line0 + x0], q = images[line0 + x1];
            const float r = images[line1 + x0], s = images[line1 + x1];
            const double above = p + (q - p) * dx, below = r + (s - r) * dx;
            value = static_cast<float>(above + (below - above) * dy);
        }}
        z = static_cast<T>(value);
    """
    return "raw float32 images, raw float64 table", "T z", operation, "mmix_augment"
