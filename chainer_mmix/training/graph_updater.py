from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import chainer
import numpy as np
from chainer import backend
from chainer.dataset import convert
from chainer.training.updaters import StandardUpdater

from chainer_mmix.links import ManifoldMixupClassifier
from chainer_mmix.links.held import links_in
from chainer_mmix.mixing import MixupDraw
from chainer_mmix.mixing.weights import DeviceWeights
from chainer_revive import registry


class GraphUpdater(StandardUpdater):
    r"""A :class:`~chainer.training.updaters.StandardUpdater` that replays CUDA graphs.

    Experimental: it has not run on a GPU yet.

    The first steps of each mixing layer run as usual. Then the forward and backward
    computation is captured, once for each layer, and replayed, which takes the host
    almost no time. The batch, :math:`\lambda` and the permutation lie in arrays that
    are filled before each replay. The optimizer runs outside of the graphs, so
    schedules of its hyperparameters work as usual. Numbers and snapshots equal those of
    a StandardUpdater.

    These steps run as usual: those of a batch that has another shape than the first
    one, and those of CutMix, FMix and ResizeMix, whose places are computed on the host.
    If a step cannot be captured, since its forward computation waits for the GPU,
    copies from the host, draws random numbers or reports a number of the host, a
    warning says so once, and all steps run as usual.

    What the forward computation does on the host happens once for each graph. A model
    that decides anew in each step what to compute, by a counter of its own, say, must
    not be trained with this updater.

    Args:
        iterator, optimizer, options: As for StandardUpdater. The optimizer's target or
            ``loss_func`` may be a :class:`~chainer_mmix.ManifoldMixupClassifier`, which
            has one graph for each layer, or any other link or loss that calls none of
            these, which has one.
        n_warmup (int): How many steps of each layer run as usual before it is captured.
            The default is 3.
        graphs: What captures; by default a
            :class:`~chainer_revive.cuda.graphs.CudaGraphs` of the current GPU.

    Raises:
        ValueError: If the model is not on a GPU.

    Attributes:
        reason (str): Why no step can be captured; ``None`` as long as they can.
    """

    def __init__(self, iterator, optimizer, *, n_warmup=3, graphs=None, **options):
        super().__init__(iterator, optimizer, **options)
        if graphs is None:
            device = self._optimizers["main"].target.device
            if not isinstance(device, backend.GpuDevice):
                raise ValueError(
                    f"GraphUpdater needs a GPU, but its model is on {device}: use "
                    "StandardUpdater there"
                )
            from chainer_revive.cuda.graphs import CudaGraphs

            graphs = CudaGraphs()
        self.n_warmup = n_warmup
        self.reason: str | None = None
        self._graphs = graphs
        self._steps: Counter[Hashable] = Counter()
        self._replays: dict[Hashable, Callable[[], _Computed]] = {}
        self._static: _Static | None = None

    def update_core(self) -> None:
        """Makes one training step."""
        iterator = self._iterators["main"]
        optimizer = self._optimizers["main"]
        batch = iterator.next()
        with self._graphs.stream():
            inputs = convert._call_converter(self.converter, batch, self.input_device)
            if isinstance(inputs, dict):
                self._step((), inputs)
            else:
                self._step(inputs if isinstance(inputs, tuple) else (inputs,), {})
        if self.auto_new_epoch and iterator.is_new_epoch:
            optimizer.new_epoch(auto=True)

    def _step(self, args: tuple, kwargs: dict) -> None:
        optimizer = self._optimizers["main"]
        model = self.loss_func or optimizer.target
        is_classifier = isinstance(model, ManifoldMixupClassifier)
        if is_classifier and type(model).forward is not ManifoldMixupClassifier.forward:
            self._give_up(f"{type(model).__name__} has a forward of its own")
            is_classifier = False
        elif not (is_classifier or self.reason) and _calls_classifier(model):
            self._give_up("the loss function draws what it mixes by a classifier in it")
        draw = model.next_draw(*args, **kwargs) if is_classifier else None

        def loss(args, kwargs, draw) -> chainer.Variable:
            if is_classifier:
                return model.compute_loss(draw, *args, **kwargs)
            return model(*args, **kwargs)

        if not self._replay(loss, args, kwargs, draw):
            optimizer.update(loss, args, kwargs, draw)
            return
        if is_classifier:
            model.draw = draw
        optimizer.update()

    def _replay(self, loss: Callable, args: tuple, kwargs: dict, draw) -> bool:
        """Computes and reports the loss, and the gradients, by a graph if it may."""
        arrays = *args, *kwargs.values()
        if not all(isinstance(a, chainer.get_array_types()) for a in arrays):
            self._give_up("the inputs of the model are not arrays")
        if registry.is_left_off("graphs"):
            self._give_up("the check of this GPU leaves graphs off")
        if self.reason or (draw is not None and draw.center is not None):
            return False
        optimizer = self._optimizers["main"]
        scale = optimizer._loss_scale
        if self._static is None:
            self._static = _Static(args, kwargs)
        static = self._static
        if not static.fits(args, kwargs):
            return False
        key = draw is not None, draw and draw.layer_mix, scale is None
        self._steps[key] += 1
        if self._steps[key] <= self.n_warmup:
            return False
        static.fill(args, kwargs, draw, scale, optimizer.target)
        if key not in self._replays:
            has_draw, layer, _ = key

            def compute() -> _Computed:
                draw = static.draw(layer) if has_draw else None
                return _compute(loss, optimizer.target, static, draw, scale is not None)

            try:
                self._replays[key] = _capture(self._graphs, compute)
            except Exception as e:
                self._give_up(f"{type(e).__name__}: {e}")
                return False
        computed = self._replays[key]()
        for (param, _), grad in zip(static.params, computed.grads, strict=True):
            param.grad = grad
            if grad is not None:
                param._loss_scale = scale
        values = {
            # Copied, since the next replay writes to the same place.
            name: value if name == _LAM else chainer.Variable(value.copy())
            for name, value in computed.values.items()
        }
        if draw is not None:
            values[_LAM] = static.weights.mean
        chainer.report(values)
        return True

    def _give_up(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            self._replays.clear()
            warnings.warn(
                "a training step cannot be captured as a CUDA graph, so all steps run "
                f"as usual, with the same results ({reason})",
                stacklevel=2,
            )


def _calls_classifier(loss: Callable) -> bool:
    return any(
        isinstance(link, ManifoldMixupClassifier)
        for root in links_in(loss)
        for link in root.links()
    )


_LAM = "main/lam"  # the one value that is reported from the host


class _Computed(NamedTuple):
    """What a graph computes, in the same arrays in each replay."""

    values: dict[str, Any]  # what was reported
    grads: list  # of the initialized parameters, None for some


class _Static:
    """What a graph reads, in the same arrays in each replay."""

    def __init__(self, args: tuple, kwargs: dict) -> None:
        self.args = tuple(map(_empty_like, args))
        self.kwargs = {name: _empty_like(array) for name, array in kwargs.items()}
        self.weights: Any = None  # DeviceWeights, once a step is mixed
        self.scale: Any = None
        self.params: list[tuple[chainer.Parameter, Any]] = []

    def fits(self, args: tuple, kwargs: dict) -> bool:
        """Tells whether the inputs have the shapes and dtypes of the first ones."""
        if len(args) != len(self.args) or kwargs.keys() != self.kwargs.keys():
            return False
        return all(
            array.shape == own.shape and array.dtype == own.dtype
            for array, own in self._pairs(args, kwargs)
        )

    def fill(self, args: tuple, kwargs: dict, draw, scale, target) -> None:
        """Takes over the numbers of a step."""
        for array, own in self._pairs(args, kwargs):
            own[...] = array
        device = target.device
        if draw is not None:
            if self.weights is None:
                self.weights = DeviceWeights(len(draw.perm), device)
            self.weights.fill(draw.lam, draw.perm)
        if scale is not None:
            if self.scale is None:
                self.scale = device.xp.empty((), np.float32)
            self.scale[...] = scale
        if not self.params:
            self.params = [(p, p.array) for p in target.params() if p.is_initialized]
        for param, own in self.params:
            if param.array is not own:  # Chainer's update of half precision replaces it
                own[...] = param.array
                param.array = own

    def draw(self, layer) -> MixupDraw:
        """Returns the draw that is in the weights."""
        return MixupDraw(layer, self.weights, self.weights.perm)

    def _pairs(self, args: tuple, kwargs: dict) -> Iterator[tuple]:
        yield from zip(args, self.args, strict=True)
        for name, own in self.kwargs.items():
            yield kwargs[name], own


def _compute(loss: Callable, target: chainer.Link, static: _Static, draw, scaled: bool):
    """Does what an optimizer does before its update."""
    reporter = chainer.Reporter()
    reporter.add_observer("main", target)
    reporter.add_observers("main", target.namedlinks(skipself=True))
    observation: dict[str, Any] = {}
    with reporter.scope(observation):
        y = loss(static.args, static.kwargs, draw)
    target.cleargrads()
    if scaled:
        y.grad = static.scale.astype(y.dtype)
    y.backward()
    y.unchain_backward()  # frees the memory for the next graph
    values = {name: chainer.as_array(value) for name, value in observation.items()}
    for name, value in values.items():
        if name != _LAM and not isinstance(value, target.xp.ndarray):
            raise TypeError(f"{name} is reported as a number of the host")
    return _Computed(values, [param.grad for param, _ in static.params])


def _capture(graphs, compute: Callable[[], _Computed]) -> Callable[[], _Computed]:
    state: Any = np.random.get_state()
    python_state = random.getstate()
    before = _comparable(state), python_state
    try:
        replay = graphs.capture(compute)
    finally:
        changed = (_comparable(np.random.get_state()), random.getstate()) != before
        if changed:
            np.random.set_state(state)
            random.setstate(python_state)
    if changed:
        raise RuntimeError("the forward computation draws random numbers")
    return replay


def _comparable(state: Any) -> tuple:
    name, keys, *rest = state
    return name, keys.tobytes(), *rest


def _empty_like(array):
    return backend.get_array_module(array).empty_like(array)
