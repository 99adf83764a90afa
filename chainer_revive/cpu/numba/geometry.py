from __future__ import annotations

import functools
from typing import NamedTuple

from chainer_revive.cpu.axis import Axis


class Geometry(NamedTuple):
    """How a kernel or a window steps over images of shape (N, h, w, c).

    Attributes:
        out_h, out_w: Numbers of steps.
        taps_y, taps_x: Elements of the kernel along H and W.
        stride_y, stride_x: From step to step.
        dilation_y, dilation_x: From element to element.
        pad_y, pad_x: How far the first step begins before the image.
    """

    h: int
    w: int
    c: int
    out_h: int
    out_w: int
    taps_y: int
    taps_x: int
    stride_y: int
    stride_x: int
    dilation_y: int
    dilation_x: int
    pad_y: int
    pad_x: int


@functools.lru_cache(1024)
def geometry(h: int, w: int, c: int, y_axis: Axis, x_axis: Axis) -> Geometry:
    """Returns how a kernel steps, along H as ``y_axis`` and along W as ``x_axis``."""
    return Geometry(
        h=h,
        w=w,
        c=c,
        out_h=y_axis.out,
        out_w=x_axis.out,
        taps_y=y_axis.taps,
        taps_x=x_axis.taps,
        stride_y=y_axis.stride,
        stride_x=x_axis.stride,
        dilation_y=y_axis.dilation,
        dilation_x=x_axis.dilation,
        pad_y=y_axis.pad,
        pad_x=x_axis.pad,
    )
