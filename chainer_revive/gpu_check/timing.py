"""Times each function both ways, on shapes of ResNet50."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import chainer
import chainer.functions as F
import numpy as np
from chainer.functions.activation.relu import ReLU
from chainer.functions.math.basic_math import Add

from chainer_revive.cuda import cross_entropy
from chainer_revive.gpu_check import cudnn_units, faults
from chainer_revive.gpu_check.case import HALF, TF32, Precision, Unit, channels_last

_TURNS = 5
_SECONDS = 0.02  # in each turn


class Shapes(NamedTuple):
    """How large the arrays are.

    Attributes:
        batch: Of images.
        shrink: What sides and channels are divided by.
    """

    batch: int = 32
    shrink: int = 1


class Timing(NamedTuple):
    """Milliseconds of one call, and its name; or why it could not be measured."""

    what: str
    ours: float
    chainers: float
    error: str | None = None

    def line(self) -> str:
        """Returns a row of a table."""
        if self.error is not None:
            return f"{self.what:<56}  {self.error}"
        ratio = self.ours / self.chainers
        return f"{self.what:<56}{self.ours:>9.3f}{self.chainers:>9.3f}{ratio:>7.2f}"


def measure(units: list[Unit], gpu, shapes: Shapes | None = None) -> Iterator[Timing]:
    """Measures functions on a GPU.

    Args:
        units: Those that have passed.
        gpu (Gpu): See :mod:`chainer_revive.gpu_check.run`.
        shapes (Shapes): By default those of ResNet50 for 32 images of 224 x 224.
    """
    by_name = {unit.name: unit for unit in units}
    for precision in (TF32, HALF):
        for name, what, prepare in _calls(shapes or Shapes()):
            if name not in by_name:
                continue
            what = f"{what}, {precision.name}"
            try:
                ours, chainers = _both_ways(prepare, by_name[name], gpu, precision)
            except Exception as e:  # such as a full memory; others may go
                yield Timing(what, np.nan, np.nan, faults.explain(e))
            else:
                yield Timing(what, ours, chainers)


def _both_ways(prepare: Callable, unit: Unit, gpu, precision: Precision) -> tuple:
    with (
        chainer.using_device(gpu.device),
        chainer.using_config("use_cudnn_tensor_core", precision.tensor_cores),
    ):
        call = prepare(gpu, precision)
        times: tuple[list, list] = ([], [])
        for _ in range(_TURNS):
            for used, own in zip(([unit], []), times, strict=True):
                with gpu.using(used):
                    own.append(_milliseconds(call, gpu))
    return tuple(map(statistics.median, times))


def _milliseconds(call: Callable, gpu) -> float:
    call()  # plans, compilation, memory
    n = 1
    while True:
        gpu.wait()
        started = time.perf_counter()
        for _ in range(n):
            call()
        gpu.wait()
        seconds = time.perf_counter() - started
        if seconds >= _SECONDS or n >= 1024:
            return 1e3 * seconds / n
        n *= 2


def _calls(shapes: Shapes) -> Iterator[tuple[str, str, Callable]]:
    n, shrink = shapes
    for channels, side, out, k in (
        (3, 224, 64, 7),
        (64, 56, 64, 3),
        (64, 56, 256, 1),
        (256, 14, 256, 3),
        (512, 7, 512, 3),
    ):
        stride, pad = (2, 3) if k == 7 else (1, k // 2)
        what = f"{channels} x {side} x {side} -> {out}, {k} x {k}"
        c, out = max(channels // shrink, 3), out // shrink
        side = max(side // shrink, 4)
        x, w = (n, c, side, side), (out, c, k, k)
        options = {"stride": stride, "pad": pad}
        y = cudnn_units.output_size(x, w, options)
        for name, words, function, inputs, more in (
            ("forward", "convolution", cudnn_units.convolve, (x, w), {}),
            ("gradient_w", "by W", cudnn_units.convolve_by_w, (x, y), {"w": w}),
            ("transposed", "by x", cudnn_units.convolve_by_x, (y, w), {"size": x[2:]}),
        ):
            if name != "transposed" or channels != 3:  # nobody asks for that
                call = functools.partial(function, **options, **more)
                label = f"{words} {what}"
                yield f"cudnn/convolution:{name}", label, _on(call, *inputs)
    image = n, max(256 // shrink, 8), 56 // shrink, 56 // shrink
    channels = image[1:2]
    values = [channels] * 4
    where = "256 x 56 x 56"
    for name, words, function, inputs in (
        ("batch_normalization:choose", "batch normalisation, both ways,",
         cudnn_units.normalize, (image, *values, image)),
        ("batch_normalization:fixed", "batch normalisation, inference,",
         cudnn_units.normalize_as_known, (image, *values)),
        ("elementwise:relu", "ReLU", lambda x: ReLU().apply((x,)), (image,)),
        ("elementwise:add", "sum", lambda *xs: Add().apply(xs), (image, image)),
    ):  # fmt: skip
        yield f"cudnn/{name}", f"{words} {where}", _on(function, *inputs)
    loss = functools.partial(_loss, n=n, n_class=1000 // shrink)
    yield "cuda/cross_entropy:cross_entropy", "mixed loss of 1000 classes", loss
    step = functools.partial(_step, shrink=shrink)
    yield "cuda/optimizers:update", "a step of MomentumSGD, 161 parameters", step


def _random(gpu, precision: Precision, shape):
    """Positive numbers, since some are variances; images are channels last."""
    x = np.random.RandomState(0).uniform(0.1, 1, shape).astype(precision.dtype)
    x = gpu.device.send(x)
    return channels_last(x) if x.ndim == 4 else x


def _on(function: Callable, *inputs: tuple[int, ...]) -> Callable:
    def prepare(gpu, precision: Precision) -> Callable:
        arrays = [_random(gpu, precision, shape) for shape in inputs]
        return lambda: function(*arrays)

    return prepare


def _loss(gpu, precision: Precision, n: int, n_class: int) -> Callable:
    x = _random(gpu, precision, (n, n_class))
    a, b = (gpu.device.send(np.full(n, k, np.int32)) for k in (0, 1))

    def call():
        pair = 0.3, 0.7
        if cross_entropy.cross_entropy(x, (a, b), pair, -1, True) is NotImplemented:
            v = chainer.Variable(x)
            losses = (F.softmax_cross_entropy(v, t) for t in (a, b))
            loss = sum(weight * loss for weight, loss in zip(pair, losses, strict=True))
            loss.backward()

    return call


def _step(gpu, precision: Precision, shrink: int) -> Callable:
    model = chainer.Chain()
    with model.init_scope():
        # As many parameters and elements as ResNet50 has, in other shapes.
        for i in range(161):
            size = (470_000 if i % 3 == 0 else 512) // shrink
            array = np.zeros(size, precision.dtype)
            setattr(model, f"p{i}", chainer.Parameter(array))
    model.to_device(gpu.device)
    optimizer = chainer.optimizers.MomentumSGD().setup(model)
    if precision.dtype == np.float16:
        optimizer.use_fp32_update()
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4))
    for param in model.params():
        param.grad = gpu.device.xp.ones_like(param.array)
    return optimizer.update
