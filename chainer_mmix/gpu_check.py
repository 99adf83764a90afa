"""The functions of this package that ``chainer_revive.gpu_check`` checks."""

from __future__ import annotations

import functools
import random
import warnings
from collections.abc import Callable, Iterator

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import backend
from chainer.training.updaters import StandardUpdater

from chainer_mmix.datasets import Augment
from chainer_mmix.datasets.augment_batch import augment_batch, make_table
from chainer_mmix.links import ManifoldMixupClassifier
from chainer_mmix.mixing import mix, mixup_data
from chainer_mmix.training import SGD, GraphUpdater
from chainer_revive import registry
from chainer_revive.gpu_check.card import usable_layers
from chainer_revive.gpu_check.case import TF32, Case, Unit, numbers


def make_graphs(model: chainer.Link):
    """Returns the graphs that capture; ``None`` for CUDA graphs."""
    return None


def _mix() -> Iterator[Case]:
    def compute(x, perm, lam, gy):
        x = chainer.Variable(x)
        y = mix(x, lam if len(lam) > 1 else float(lam[0]), perm)
        y.grad = gy
        y.backward()
        return y.array, x.grad

    shape = 7, 5, 3, 3
    perm = np.random.RandomState(2).permutation(7)
    for name, n in (("one lambda", 1), ("one lambda a sample", 7)):
        x, gy = numbers(shape, shape)
        (lam,) = numbers((n,), low=0)
        yield Case(name, (x, perm, lam, gy), compute)


def _augment() -> Iterator[Case]:
    shape, indices = (3, 9, 7), [4, 0, 2, 2, 1]
    (images,) = numbers((5, *shape))
    rotated = Augment(2, 30.0, flip=True)
    for name, augment in (("", Augment(2, flip=True)), ("rotated", rotated)):
        draws = [augment.draw(shape, random.Random(i)) for i in range(len(indices))]
        table = make_table(indices, draws, augment.padding, shape[1:])

        def compute(images, table=table):
            device = backend.get_device_from_array(images)
            single, dtype = images.astype(np.float32, copy=False), images.dtype
            return (augment_batch(single, device.send(table), dtype),)

        yield Case(name, (images,), compute)


def _sgd(step) -> Callable[[], Iterator[Case]]:
    """Returns the cases of two steps, each by ``step(optimizer, param)``."""

    def compute(array, *grads, nesterov):
        device = backend.get_device_from_array(array)
        model = chainer.Chain()
        with model.init_scope():
            model.p = chainer.Parameter(array)
        model.to_device(device)
        optimizer = SGD(0.1, 0.8, 0.02, nesterov).setup(model)
        if array.dtype == np.float16:
            optimizer.use_fp32_update()
        for grad in grads:
            model.p.grad = grad
            step(optimizer, model.p)
        return model.p.array, model.p.update_rule.state["velocity"]

    def cases() -> Iterator[Case]:
        for name, nesterov in (("", False), ("Nesterov", True)):
            arrays = tuple(numbers((37, 41), (37, 41), (37, 41)))
            yield Case(name, arrays, functools.partial(compute, nesterov=nesterov))

    return cases


class _Net(chainer.Chain):
    """A small network, with cuDNN's layers if Chainer's own cannot be captured."""

    mixup_layers = (0,)

    def __init__(self, is_image: bool) -> None:
        super().__init__()
        self.is_image = is_image
        with self.init_scope():
            if is_image:
                self.conv = L.Convolution2D(3, 16, 3, 1, 1, nobias=True)
                self.bn = L.BatchNormalization(16)
            self.fc = L.Linear(16 if is_image else 3 * 7 * 3, 4)

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        if mixup_hidden:
            x, target_a, target_b = mixup_data(x, target, lam)
        if self.is_image:
            h = F.average(F.relu(self.bn(self.conv(x))), axis=(2, 3))
        else:
            h = F.leaky_relu(x)  # Chainer's ReLU calls cuDNN 8, too
        y = self.fc(h)
        return (y, target_a, target_b) if mixup_hidden else y


def _graphs() -> Iterator[Case]:
    is_image = "cudnn" in usable_layers()

    def compute(x, t, *weights):
        device = backend.get_device_from_array(x)
        with chainer.using_config("dtype", x.dtype):
            model = ManifoldMixupClassifier(_Net(is_image), mixup_alpha=1.0, seed=0)
        model.to_device(device)
        params = [p for _, p in sorted(model.namedparams())]
        given = iter(weights)
        for param in params:
            if param.ndim > 1:
                param.array = next(given)
        optimizer = chainer.optimizers.MomentumSGD(0.1).setup(model)
        batches = chainer.iterators.SerialIterator(list(range(1)), 1)

        @chainer.dataset.converter()
        def converter(examples, device):
            return x, t

        options = {"converter": converter, "device": device}
        if registry.is_left_off("graphs"):
            updater = StandardUpdater(batches, optimizer, **options)
        else:
            graphs = make_graphs(model)
            updater = GraphUpdater(
                *(batches, optimizer), n_warmup=1, graphs=graphs, **options
            )
        reporter = chainer.Reporter()
        reporter.add_observer("main", model)
        losses = []
        for _ in range(4):  # one as usual, one captured, and two more of its replays
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is raised below
                with reporter.scope(observation := {}):
                    updater.update()
            losses.append(float(chainer.as_array(observation["main/loss"])))
        if reason := getattr(updater, "reason", None):
            raise RuntimeError(reason)
        return np.array(losses), *(p.array for p in params)

    x, conv, fc = numbers(
        (5, 3, 7, 3), (16, 3, 3, 3), (4, 16 if is_image else 63), seed=3
    )
    t = np.arange(5, dtype=np.int32) % 4
    weights = (conv, fc) if is_image else (fc,)
    yield Case("four steps", (x, t, *weights), compute, (TF32,))


UNITS = (
    Unit("mix", "mixing", _mix, None),
    Unit("augment", "augmentation", _augment, None),
    Unit(
        "cuda/optimizers:SGDRule",
        "SGD, all parameters",
        _sgd(lambda optimizer, param: optimizer.update()),
        None,
    ),
    Unit(
        "sgd",
        "SGD, one parameter",
        _sgd(lambda optimizer, param: param.update()),
        None,
    ),
    Unit("graphs", "CUDA graphs", _graphs, None, captures=True),
)
