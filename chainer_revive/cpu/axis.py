"""How a kernel steps over an image."""

from __future__ import annotations

import functools
import operator
from typing import NamedTuple


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


def meet(axis: Axis, tap: int) -> tuple[slice, slice]:
    """Returns the steps at which a tap meets the image, and the elements it meets."""
    offset = tap * axis.dilation - axis.pad  # of the first step
    start = max(0, -(offset // axis.stride))
    stop = min(axis.out, (axis.size - 1 - offset) // axis.stride + 1)
    if start >= stop:
        return slice(0), slice(0)
    begin, end = (offset + step * axis.stride for step in (start, stop - 1))
    return slice(start, stop), slice(begin, end + 1, axis.stride)
