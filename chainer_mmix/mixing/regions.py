"""The regions of a map that are taken from the partner: boxes and masks of noise."""

from __future__ import annotations

import numpy as np

from chainer_mmix.mixing.draw import MixupDraw
from chainer_mmix.mixing.weights import Weights

NAMES = {"cutmix": "CutMix", "fmix": "FMix", "resizemix": "ResizeMix"}
_DECAY = 3  # of FMix's noise, as in its paper


class Regions:
    """The places of a map that a draw takes from the partner.

    Args:
        draw (MixupDraw): The draw.
        size: The lengths of the axes of the map.

    Attributes:
        mask: Bool array of shape (1 or N, *size).
        methods: The method of each, an array of shape (1 or N,).
        low, high: Where its box begins and ends, int arrays of shape (1 or N, axes).
    """

    def __init__(self, draw: MixupDraw, size: tuple[int, ...]) -> None:
        self.size = size
        self.methods = np.atleast_1d(draw.method)
        rest = np.atleast_1d(Weights.of(draw.lam, len(draw.perm)).second)
        self.methods, rest = np.broadcast_arrays(self.methods, rest)
        assert draw.center is not None
        place = np.reshape(draw.center, (-1, 3))
        self.low, self.high = self._boxes(rest[:, None], place, draw.sides)
        self.mask = np.ones((len(rest), *size), bool)
        for axis, n in enumerate(size):
            at = np.arange(n)
            low, high = self.low[:, axis, None], self.high[:, axis, None]
            inside = (low <= at) & (at < high)
            shape = (n if k == axis else 1 for k in range(len(size)))
            self.mask &= inside.reshape(-1, *shape)
        for i in np.flatnonzero(self.methods == "fmix"):
            self.mask[i] = _of_noise(rest[i], place[i], size)

    def _boxes(self, rest, place, sides) -> tuple[np.ndarray, np.ndarray]:
        size = np.array(self.size)
        place = place[:, : len(size)]
        share = rest ** (1 / len(size))  # of each side
        half = (size * share / 2).astype(int)
        middle = (size * place).astype(int)
        low, high = np.maximum(middle - half, 0), np.minimum(middle + half, size)

        def within(length) -> tuple:
            start = (place * (size - length + 1)).astype(int)
            return start, start + length

        if sides is not None:
            sides = np.reshape(sides, (-1, 3))[:, : len(size)]
            low, high = within((size * sides).astype(int))
        is_resized = (self.methods == "resizemix")[:, None]
        if is_resized.any():
            resized = within((size * share).astype(int))
            low, high = np.where(is_resized, resized, (low, high))
        is_box = is_resized | (self.methods == "cutmix")[:, None]
        return low, np.where(is_box, high, low)

    def left(self, lam) -> float | np.ndarray:
        """Returns the weight of the first partner, after places were pasted.

        Where they were, it is the share of the map that is left.
        """
        left = 1 - self.mask.reshape(len(self.mask), -1).mean(axis=1)
        left = np.where(np.isin(self.methods, list(NAMES)), left, lam)
        return left.astype(np.float32) if np.ndim(lam) else float(left[0])

    def sources(self, axis: int, n: int) -> np.ndarray:
        """Returns where places along an axis of n targets come from, (1 or N, n)."""
        at, size = np.arange(n), self.size[axis]
        low, high = self.low[:, axis, None], self.high[:, axis, None]
        middle = (2 * at + 1) * size - 2 * n * low  # times 2 n, from the box's edge
        resized = (middle // (2 * np.maximum(high - low, 1))).clip(0, n - 1)
        return np.where((self.methods == "resizemix")[:, None], resized, at)

    def places(self) -> np.ndarray:
        """Returns the places of the partner that each element has, (1 or N, elements).

        They are numbers of elements, -1 outside of the box of a resized map.
        """
        flat = np.zeros((len(self.mask), *self.size), np.int64)
        for axis, n in enumerate(self.size):
            shape = (n if k == axis else 1 for k in range(len(self.size)))
            flat = flat * n + self.sources(axis, n).reshape(-1, *shape)
        is_resized = self.methods == "resizemix"
        flat = flat.reshape(len(flat), -1)
        outside = ~self.mask.reshape(len(flat), -1) & is_resized[:, None]
        return np.where(outside, -1, flat)


def _of_noise(rest: float, place: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Returns the largest values of low-frequency noise, the share ``rest`` of all."""
    seed = np.ascontiguousarray(place, np.float64).view(np.uint32)
    rng = np.random.default_rng(seed)
    axes = [np.fft.fftfreq(n) for n in size[:-1]] + [np.fft.rfftfreq(size[-1])]
    f = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True)))
    white = np.fft.rfftn(rng.standard_normal(size))
    spectrum = white / np.maximum(f, 1 / max(size)) ** _DECAY
    noise = np.fft.irfftn(spectrum, size, range(len(size)))
    mask = np.zeros(noise.size, bool)
    mask[np.argsort(noise, axis=None)[noise.size - round(rest * noise.size) :]] = True
    return mask.reshape(size)
