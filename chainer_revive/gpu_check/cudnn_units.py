"""The functions of :mod:`chainer_revive.cudnn`, each called by itself."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import chainer
import numpy as np
from chainer.functions.activation.relu import ReLU, ReLUGrad2
from chainer.functions.connection.convolution_2d import (
    Convolution2DFunction,
    Convolution2DGradW,
)
from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction
from chainer.functions.math.basic_math import Add, MultiAdd
from chainer.functions.normalization.batch_normalization import (
    BatchNormalization,
    FixedBatchNormalization,
)
from chainer.utils.conv import get_conv_outsize

from chainer_revive.gpu_check.case import (
    HALF,
    SINGLE,
    STRICT,
    TF32,
    Case,
    Unit,
    channels_last,
    numbers,
)

# Images, kernel and options of convolutions; most sizes divide by nothing.
_CONVOLUTIONS = {
    "3x3": ((3, 16, 9, 7), (24, 16, 3, 3), {"pad": 1}),
    "odd channels, stride": (
        *((2, 3, 11, 8), (5, 3, 3, 3)),
        {"stride": (2, 3), "pad": (1, 0)},
    ),
    "1x1, stride": ((2, 8, 9, 7), (16, 8, 1, 1), {"stride": 2}),
    "dilation": ((2, 8, 11, 9), (8, 8, 3, 2), {"dilate": (2, 3), "pad": 2}),
    "groups": ((2, 12, 7, 6), (9, 4, 3, 3), {"groups": 3, "pad": 1}),
}
# Kernels of Chainer's own, on views of their arrays: no dtype has others.
_VIEWED = (SINGLE,)


def output_size(x: tuple, w: tuple, options: dict) -> tuple[int, ...]:
    """Returns the shape of the output."""
    node = Convolution2DFunction(**options)
    steps = (node.sy, node.ph, node.dy), (node.sx, node.pw, node.dx)
    sides = [
        get_conv_outsize(size, k, s, p, d=d)
        for size, k, (s, p, d) in zip(x[2:], w[2:], steps, strict=True)
    ]
    return x[0], w[0], *sides


def convolve(*inputs, **options) -> list:
    """Convolves x with W, and adds a bias if there is one."""
    return _arrays(Convolution2DFunction(**options).apply(inputs))


def convolve_by_w(x, gy, w, **options) -> list:
    """Computes the gradient by W of the shape w."""
    node = Convolution2DFunction(**options)
    node._use_ideep = False
    return _arrays(Convolution2DGradW(node, w, x.dtype, None).apply((x, gy)))


def convolve_by_x(*inputs, size, **options) -> list:
    """Computes the gradient by x of a height and width, from gy and W."""
    return _arrays(Deconvolution2DFunction(outsize=size, **options).apply(inputs))


def _in_each_precision(name: str, shapes: tuple, compute) -> Iterator[Case]:
    yield Case(name, tuple(numbers(*shapes)), compute, (TF32, HALF))
    # TF32 has all the digits of half precision: only with more is it told from float32.
    yield Case(name, tuple(numbers(*shapes, fit=np.float32)), compute, (STRICT,))


def _forward() -> Iterator[Case]:
    for name, (x, w, options) in _CONVOLUTIONS.items():
        compute = functools.partial(convolve, **options)
        yield from _in_each_precision(f"{name}, bias", (x, w, w[:1]), compute)
        if name == "3x3":
            yield from _in_each_precision(name, (x, w), compute)


def _gradient_w() -> Iterator[Case]:
    for name, (x, w, options) in _CONVOLUTIONS.items():
        compute = functools.partial(convolve_by_w, w=w, **options)
        shapes = x, output_size(x, w, options)
        yield from _in_each_precision(name, shapes, compute)


def _transposed() -> Iterator[Case]:
    for name, (x, w, options) in _CONVOLUTIONS.items():
        y = output_size(x, w, options)
        compute = functools.partial(convolve_by_x, size=x[2:], **options)
        yield from _in_each_precision(f"{name}, gradient by x", (y, w), compute)
        if name == "3x3":
            name = f"{name}, bias, deconvolution"
            yield from _in_each_precision(name, (y, w, x[1:2]), compute)


def normalize(x, gamma, beta, mean, var, gy) -> tuple:
    """Normalises by the statistics of the batch, forwards and backwards."""
    gamma, beta, mean, var = map(_single, (gamma, beta, mean, var))
    inputs = [chainer.Variable(a) for a in (x, gamma, beta)]
    (y,) = BatchNormalization(1e-3, mean, var, 0.8, None).apply(inputs)
    y.grad = gy
    y.backward()
    return y.array, *(v.grad for v in inputs), mean, var


def _training() -> Iterator[Case]:
    shape, c = (5, 16, 7, 3), (16,)
    x, gy, mean = numbers(shape, shape, c)
    gamma, beta, var = numbers(c, c, c, low=0.5, seed=1)
    x = 2 * x + mean[:, None, None]
    inputs = x.astype(np.float16).astype(np.float64), gamma, beta, mean, var, gy
    yield Case("", inputs, normalize)


def normalize_as_known(x, gamma, beta, mean, var) -> list:
    """Normalises by given statistics."""
    values = map(_single, (gamma, beta, mean, var))
    return _arrays(FixedBatchNormalization(1e-3).apply((x, *values)))


def _inference() -> Iterator[Case]:
    def compute(x, *values):
        return normalize_as_known(channels_last(x), *values)

    x, mean = numbers((5, 7, 3, 5), (7,))
    gamma, beta, var = numbers((7,), (7,), (7,), low=0.5, seed=1)
    yield Case("", (x, gamma, beta, mean, var), compute, _VIEWED)


_IMAGE = 3, 5, 4, 7


def _relu() -> Iterator[Case]:
    def compute(x):
        return _arrays(ReLU().apply((channels_last(x),)))

    yield Case("", tuple(numbers(_IMAGE)), compute, _VIEWED)


def _relu_gradient() -> Iterator[Case]:
    def compute(y, gy):
        y, gy = channels_last(y), channels_last(gy)
        return _arrays(ReLUGrad2(y).apply((gy,)))

    y, gy = numbers(_IMAGE, _IMAGE)
    yield Case("", (np.maximum(y, 0), gy), compute, _VIEWED)


def _sums() -> Iterator[Case]:
    def compute(*inputs):
        a, *others = inputs
        node = Add() if len(others) == 1 else MultiAdd()
        # The second has its channels first.
        return _arrays(node.apply((channels_last(a), *others)))

    for n in (2, 3):
        yield Case(f"of {n}", tuple(numbers(*[_IMAGE] * n)), compute, _VIEWED)


def _arrays(variables) -> list:
    return [v.array for v in variables]


def _single(values):
    """Statistics and scales stay in float32 where images are in half precision."""
    return values.astype(np.promote_types(values.dtype, np.float32), copy=False)


UNITS = tuple(
    Unit(f"cudnn/{name}", what, cases, "cudnn")
    for name, what, cases in (
        ("convolution:forward", "convolution", _forward),
        ("convolution:gradient_w", "convolution, gradient by W", _gradient_w),
        ("convolution:transposed", "convolution, gradient by x", _transposed),
        ("batch_normalization:choose", "batch normalisation, training", _training),
        ("batch_normalization:fixed", "batch normalisation, inference", _inference),
        ("elementwise:relu", "ReLU", _relu),
        ("elementwise:relu_gradient", "ReLU, gradient", _relu_gradient),
        ("elementwise:add", "sums", _sums),
    )
)
