"""cuDNN on NumPy's arrays."""

from contextlib import contextmanager
from unittest import mock

import numpy as np
from chainer.functions.normalization import batch_normalization as chainers_bn
from numpy.lib.stride_tricks import as_strided

from chainer_revive import registry
from chainer_revive.cudnn import elementwise, executor
from chainer_revive.either import either


class NumpyExecutor:
    """Computes operations in float64, on the memory that they describe."""

    xp = np

    def __init__(self):
        self.operations = []
        self.refuses = lambda operation: False

    def prepare(self, operation):
        if self.refuses(operation):
            return None
        self.operations.append(operation)

        def run(inputs, outputs):
            values = [
                x if isinstance(x, float) else at_strides(x, tensor).astype(np.float64)
                for x, tensor in zip(inputs, operation.inputs, strict=True)
            ]
            results = COMPUTE[operation.kind](
                *values, operation.outputs[0].shape, **dict(operation.attributes)
            )
            for array, tensor, y in zip(
                outputs, operation.outputs, results, strict=True
            ):
                at_strides(array, tensor)[...] = y

        return run


def at_strides(array, tensor):
    """The elements that cuDNN would find at the address of an array."""
    assert array.dtype.char == tensor.dtype and array.size == np.prod(tensor.shape)
    strides = [s * array.itemsize for s in tensor.strides]
    return as_strided(array, tensor.shape, strides)


def taps(size, kernel, padding, stride, dilation):
    """Yields each tap of a kernel and the places in a padded image that it meets."""
    for tap in np.ndindex(*kernel):
        yield (
            (..., *tap),
            (
                ...,
                *(
                    slice(t * d, t * d + s * (n - 1) + 1, s)
                    for t, d, s, n in zip(tap, dilation, stride, size, strict=True)
                ),
            ),
        )


def grouped(x, channels):
    """Splits (N, C, H, W) into (N, groups, C / groups, H, W)."""
    return x.reshape(len(x), -1, channels, *x.shape[2:])


def pad(x, padding):
    return np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))


def convolution(x, W, shape, padding, **steps):
    x, y = grouped(pad(x, padding), W.shape[1]), 0
    W = W.reshape(x.shape[1], -1, *W.shape[1:])
    for tap, place in taps(shape[2:], W.shape[-2:], padding, **steps):
        y = y + np.einsum("ngchw,goc->ngohw", x[place], W[tap])
    return [y.reshape(shape)]


def convolution_by_x(gy, W, shape, padding, **steps):
    gx = grouped(pad(np.zeros(shape), padding), W.shape[1])
    W = W.reshape(gx.shape[1], -1, *W.shape[1:])
    gy = grouped(gy, W.shape[1])
    for tap, place in taps(gy.shape[3:], W.shape[-2:], padding, **steps):
        gx[place] += np.einsum("ngohw,goc->ngchw", gy, W[tap])
    (p, q), (h, w) = padding, shape[2:]
    gx = gx.reshape(len(gx), -1, *gx.shape[3:])
    return [gx[:, :, p : p + h, q : q + w]]


def convolution_by_w(x, gy, shape, padding, **steps):
    x, gW = grouped(pad(x, padding), shape[1]), np.empty(shape)
    gy = grouped(gy, shape[0] // x.shape[1])
    for tap, place in taps(gy.shape[3:], shape[2:], padding, **steps):
        product = np.einsum("ngchw,ngohw->goc", x[place], gy)
        gW[tap] = product.reshape(shape[:2])
    return [gW]


def batch_normalization(x, gamma, beta, mean, var, eps, rate, shape):
    m, v = (f(x, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.var))
    count = x.size / m.size
    inv_std = 1 / np.sqrt(v + eps)
    mean = (1 - rate) * mean + rate * m
    var = (1 - rate) * var + rate * v * count / (count - 1)
    return gamma * (x - m) * inv_std + beta, m, inv_std, mean, var


def batch_normalization_by_x(gy, x, gamma, mean, inv_std, shape):
    x_hat = (x - mean) * inv_std
    ggamma, gbeta = (g.sum((0, 2, 3), keepdims=True) for g in (gy * x_hat, gy))
    count = x.size / mean.size
    return gamma * inv_std * (gy - (x_hat * ggamma + gbeta) / count), ggamma, gbeta


COMPUTE = {
    "convolution": convolution,
    "convolution by x": convolution_by_x,
    "convolution by W": convolution_by_w,
    "batch normalization": batch_normalization,
    "batch normalization by x": batch_normalization_by_x,
}


def convolving_in_tf32():
    """A context in which convolutions round their inputs as tensor cores do."""

    def in_tf32(array):
        bits = array.astype(np.float32).view(np.uint32)
        kept = (bits + np.uint32(1 << 12)) & np.uint32(-1 << 13 & 0xFFFFFFFF)
        return kept.view(np.float32).astype(np.float64)

    def rounding(compute):
        def call(a, b, *args, **options):
            return compute(in_tf32(a), in_tf32(b), *args, **options)

        return call

    kinds = [kind for kind in COMPUTE if kind.startswith("convolution")]
    return mock.patch.dict(COMPUTE, {kind: rounding(COMPUTE[kind]) for kind in kinds})


@contextmanager
def through(used, is_used):
    """A context in which functions of cuDNN's layer take the place of those for a CPU.

    Args:
        used: The executor.
        is_used: Tells, from its name in the registry, whether a function does.
    """
    with mock.patch.object(executor, "current", lambda: used):
        undo = []

        def put(owner, name, function):
            undo.append((owner, name, getattr(owner, name)))
            setattr(owner, name, function)

        try:
            for target, layers in registry.TABLE.items():
                if "cudnn" not in layers:
                    continue
                fast = registry.function_for(target, "cudnn")
                owner, name = registry.owner_of(target.replace("gpu", "cpu"))
                original = getattr(owner, name)
                if fast.__module__ == elementwise.__name__:
                    original = as_cupy_does(original)
                if is_used(registry.named(target, "cudnn")):
                    original = either(fast, original)
                put(owner, name, original)
            put(chainers_bn, "_apply_bn_fwd", as_cupy_does(chainers_bn._apply_bn_fwd))
            yield
        finally:
            for owner, name, function in reversed(undo):
                setattr(owner, name, function)


def as_cupy_does(function):
    """NumPy's elementwise functions keep the order of memory, CuPy's do not."""

    def call(*args):
        y = function(*args)
        if isinstance(y, tuple):
            return tuple(map(np.ascontiguousarray, y))
        return np.ascontiguousarray(y)

    return call
