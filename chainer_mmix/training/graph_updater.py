from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Hashable
from types import NoneType
from typing import Any, NamedTuple

import chainer
import numpy as np
from chainer import backend
from chainer.dataset import convert
from chainer.training.updaters import StandardUpdater

from chainer_mmix.checks import check_whole
from chainer_mmix.links import ManifoldMixupClassifier
from chainer_mmix.links.links_in import links_in
from chainer_mmix.training.arguments import check_iterators, check_set_up
from chainer_mmix.training.device import given_device
from chainer_mmix.training.multinode.silence import silence
from chainer_mmix.training.precision import check_hooks
from chainer_mmix.training.replay import (
    MANY,
    Kind,
    Static,
    capture,
    copied,
    initialized,
    links_of,
    reported,
)
from chainer_revive import registry
from chainer_revive.compat.runtime import joined
from chainer_revive.cpu.steps import CannotReplayError
from chainer_revive.same import Same


class GraphUpdater(StandardUpdater):
    r"""A :class:`~chainer.training.updaters.StandardUpdater` that replays its steps.

    On a GPU it is experimental: it has not run on one yet.

    The first steps of each mixing layer run as usual. Then the forward and backward
    computation is captured, once for each layer, and replayed, with almost no Python:
    as a CUDA graph on a GPU, as a list of compiled loops on a CPU. The batch,
    :math:`\lambda` and the permutation lie in arrays that are filled before each
    replay. The optimizer runs outside of the graphs, so schedules of its
    hyperparameters work as usual. Numbers and snapshots equal those of a
    StandardUpdater; on a CPU, two replays of each layer are compared with the usual
    step bit for bit.

    These steps run as usual: those of a batch that has another shape or layout than the
    first one, of CutMix, FMix and ResizeMix, whose places are computed on the host, and
    on a CPU those at which function hooks or debug mode look on. If a step cannot be
    captured, a warning says why, once, and all steps run as usual. That is so if the
    optimizer has an ``update`` of its own, if the loss has parameters that its target
    has not, or if the forward computation draws random numbers or reports a number of
    the host; on a GPU, if it waits for it or copies from the host; on a CPU, if numbers
    are computed neither in Chainer's functions nor in compiled loops.

    Under a multi-node optimizer, on CPUs, the gradients are exchanged after each step,
    replayed or not: each rank captures and replays its own steps, whatever the others
    do. A model that exchanges numbers itself, such as by
    :class:`chainermn.links.MultiNodeBatchNormalization`, cannot be captured.

    What the forward computation does besides happens once for each graph. A model that
    decides anew in each step what to compute, by the labels of the batch, say, must not
    be trained with this updater. On a CPU, numbers, words and functions that are
    attributes of a link or of the loss function, or of objects in these, the hooks of a
    link and the configuration may change between steps: what is captured for one
    setting is not replayed for another. If one changes in each step, none is replayed,
    and a warning says so. A gradient is overwritten in the next step: who keeps
    ``param.grad`` must copy it.

    Args:
        iterator, optimizer, options: As for StandardUpdater. The optimizer's target or
            ``loss_func`` may be a :class:`~chainer_mmix.ManifoldMixupClassifier`, which
            has one graph for each layer, or any other link or loss that calls none of
            these, which has one.
        n_warmup (int): How many steps of each layer run as usual before it is captured,
            at least one. The default is 3.
        graphs: What captures; by default a
            :class:`~chainer_revive.cuda.graphs.CudaGraphs` of the current GPU, or a
            :class:`~chainer_revive.cpu.graphs.CpuGraphs`.

    Raises:
        TypeError: If the iterator or the optimizer is something else.
        ValueError: If the model is on another device, or on a CPU without compiled
            loops, or elsewhere under a multi-node optimizer, or no iterator or no
            optimizer is called main, or one is not set up, or has a hook that would
            take scaled gradients for the gradients, or ``n_warmup`` is not a whole
            number >= 1.

    Attributes:
        reason (str): Why no step can be captured; ``None`` as long as they can.
    """

    def __init__(self, iterator, optimizer, *, n_warmup=3, graphs=None, **options):
        check_iterators(iterator, type(self).__name__)
        for one in optimizer.values() if isinstance(optimizer, dict) else [optimizer]:
            check_set_up(one)
        for name in options.keys() & {"device", "input_device"}:
            options[name] = given_device(options[name])
        super().__init__(iterator, optimizer, **options)
        if "main" not in self._optimizers:
            raise ValueError(
                "GraphUpdater makes the steps of an optimizer that is called main, but "
                f"there are only {[*self._optimizers]}: use StandardUpdater for these"
            )
        device = self._optimizers["main"].target.device
        if self._communicator and not isinstance(device, backend.CpuDevice):
            raise ValueError(
                "GraphUpdater is for ranks on CPUs, but its optimizer is a multi-node "
                f"optimizer and its model on {device}: use StandardUpdater there"
            )
        check_whole("n_warmup", n_warmup, 1)
        for one in self._optimizers.values():
            check_hooks(one)
        if graphs is None:
            graphs = self._make_graphs()
        self.n_warmup = n_warmup
        self.reason: str | None = None
        self._graphs = graphs
        self._kinds: dict[Hashable, Kind[_Computed]] = {}
        self._static: Static | None = None
        self._has_warned = False

    @property
    def n_graphs(self) -> int:
        """How many graphs are captured."""
        return sum(kind.replay is not None for kind in self._kinds.values())

    @property
    def _communicator(self):
        """That of a multi-node optimizer, if it is one."""
        return getattr(self._optimizers["main"], "communicator", None)

    def _make_graphs(self):
        """Returns what captures on the device of the model."""
        device = self._optimizers["main"].target.device
        if isinstance(device, backend.GpuDevice):
            from chainer_revive.cuda.graphs import CudaGraphs

            return CudaGraphs()
        if isinstance(device, backend.CpuDevice):
            from chainer_revive.cpu.graphs import CpuGraphs

            return CpuGraphs(self._links)
        raise ValueError(
            f"GraphUpdater is for NumPy and CuPy, but its model is on {device}: use "
            "StandardUpdater there"
        )

    def _links(self, everywhere: bool = False) -> list[chainer.Link]:
        """Returns the links of a step, or also those in attributes of these."""
        target = self._optimizers["main"].target
        return links_of(target, self.loss_func or target, everywhere)

    def __getstate__(self) -> dict:
        """Leaves out what was captured, for copies capture anew."""
        return {**self.__dict__, "_kinds": {}, "_static": None, "_graphs": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._graphs = self._make_graphs()

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
        elif not (is_classifier or self.reason) and _calls_classifier(model):
            self._give_up("the loss function draws what it mixes by a classifier in it")
        if self._communicator:
            joined(optimizer, model)  # by which ranks draw each its own
        elif not registry.is_own(optimizer.update):  # It may call the loss twice.
            self._give_up(f"{type(optimizer).__name__} has an update of its own")
        if self.reason:
            self._graphs.free()
            optimizer.update(model, *args, **kwargs)
            return
        draw = model.next_draw(*args, **kwargs) if is_classifier else None

        def loss(args, kwargs, draw) -> chainer.Variable:
            if is_classifier:
                return model.compute_loss(draw, *args, **kwargs)
            return model(*args, **kwargs)

        if not self._replay(model, loss, args, kwargs, draw):
            self._graphs.free()
            optimizer.update(loss, args, kwargs, draw)
            return
        if is_classifier:
            model.draw = draw
        optimizer.update()

    def _replay(self, model, loss: Callable, args: tuple, kwargs: dict, draw) -> bool:
        """Computes and reports the loss, and the gradients, by a graph if it may."""
        arrays = *args, *kwargs.values()
        if not all(isinstance(a, chainer.get_array_types()) for a in arrays):
            self._give_up("the inputs of the model are not arrays")
        if registry.is_left_off("graphs"):
            self._give_up("the check of this GPU leaves graphs off")
        setting = self._graphs.setting(model)
        if self.reason or setting is None or (draw and draw.center is not None):
            return False
        optimizer = self._optimizers["main"]
        scale = optimizer._loss_scale
        if self._static is None:
            self._static = Static(args, kwargs)
        static = self._static
        if not static.fits(args, kwargs):
            if not self.n_graphs:
                self._static = None  # The next batch may be like others.
            return False
        has_draw, layer = draw is not None, draw and draw.layer_mix
        scaled, form = scale is not None, _form(model, optimizer.target)
        reporter = _reporter()
        names = tuple(reporter._observer_names.items()) if reporter else None
        key = has_draw, layer, scaled, setting, form, names
        if len(self._kinds) > MANY:
            if not self.n_graphs:
                self._warn_of_changes()
            self._kinds.clear()
        kind = self._kinds.setdefault(key, Kind())
        kind.n += 1
        if kind.n <= self.n_warmup:
            return False
        static.fill(args, kwargs, draw, scale)
        if self._graphs.keeps_arrays:
            static.keep_arrays(optimizer.target)

        def compute() -> _Computed:
            draw = static.draw(layer) if has_draw else None
            with silence():
                return _compute(loss, model, optimizer.target, static, draw, scaled)

        try:
            if kind.replay is None:
                roots = model, optimizer.target
                kind.replay = capture(self._graphs, compute, static.arrays(), roots)
            computed = kind.replay()
        except CannotReplayError as e:
            self._give_up(str(e))
            return False
        params = initialized(optimizer.target)
        for param, grad in zip(params, computed.grads, strict=True):
            param._set_grad_without_check(grad)  # checked when it was recorded
            if grad is not None:
                param._loss_scale = scale
        for name, value in computed.attributes.items():
            own = value.copy() if isinstance(value, np.ndarray) else value
            setattr(model, name, None if own is None else chainer.Variable(own))
        values = copied(computed.values)
        if draw is not None and (lam := _name_of_lam(model)):
            values[lam] = static.weights.mean
        chainer.report(values)
        return True

    def _give_up(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            self._kinds.clear()
            warnings.warn(
                "a training step cannot be captured and replayed, so all steps run as "
                f"usual ({reason})",
                stacklevel=2,
            )

    def _warn_of_changes(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"none of more than {MANY} steps was replayed, since an attribute of "
                "the model or of the loss, or the configuration, changes in each step "
                "(a count of calls, say), and a captured step holds for one value: "
                "steps run as usual until the values stay the same",
                stacklevel=2,
            )


def _calls_classifier(loss: Callable) -> bool:
    return any(
        isinstance(link, ManifoldMixupClassifier)
        for root in links_in(loss)
        for link in root.links()
    )


# What a classifier computes by, besides its links.
_SETTINGS = (
    *("lossfun", "accfun", "compute_accuracy", "label_smoothing", "clean_weight"),
    *("remix", "top_k"),
)


def _reporter() -> chainer.Reporter | None:
    """Returns the current reporter, if there is one."""
    try:
        return chainer.reporter.get_current_reporter()
    except IndexError:
        return None


def _name_of_lam(model: Callable) -> str | None:
    """Returns the name of the one value that is reported from the host."""
    reporter = _reporter()
    if reporter is None or not isinstance(model, ManifoldMixupClassifier):
        return None
    return f"{reporter._observer_names.get(id(model))}/lam"


class _Computed(NamedTuple):
    """What a graph computes, in the same arrays in each replay."""

    values: dict[str, tuple[bool, Any]]  # what was reported, and if by variables
    attributes: dict[str, Any]  # what a classifier keeps of a step
    grads: list  # of the initialized parameters, None for some


def _form(model: Callable, target: chainer.Link) -> tuple:
    """Returns what a user may change of a model between two steps."""
    params = [
        (Same(p), None if p.array is None else p.array.shape) for p in target.params()
    ]
    if not isinstance(model, ManifoldMixupClassifier):
        return tuple(params)
    return *params, *[_identity(getattr(model, name)) for name in _SETTINGS]


def _identity(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float)) else Same(value)


def _check_reached(y: chainer.Variable, target: chainer.Link) -> None:
    """Sees whether a loss has gradients with respect to a target's parameters alone.

    Raises:
        CannotReplayError: If it has others, which a replay would leave out.
    """
    own, seen = {id(param.node) for param in target.params()}, set()
    nodes = [y.node]
    while nodes:
        node = nodes.pop()
        if id(node) in seen or id(node) in own or not node.requires_grad:
            continue
        seen.add(id(node))
        if node.creator_node is not None:
            nodes += node.creator_node.inputs
        elif node.get_variable_or_none() is not None:
            name = node.name or "a variable"
            raise CannotReplayError(
                f"it computes the gradient of {name}, of shape {node.shape}, which is "
                "no parameter of the optimizer's target"
            )


def _compute(
    loss: Callable, model, target: chainer.Link, static: Static, draw, scaled: bool
) -> _Computed:
    """Does what an optimizer does before its update."""
    observation: dict[str, Any] = {}
    reporter = _reporter()
    with reporter.scope(observation) if reporter else contextlib.nullcontext():
        y = loss(static.args, static.kwargs, draw)
    _check_reached(y, target)
    target.cleargrads()
    if scaled:
        y.grad = static.scale.astype(y.dtype)
    y.backward()
    y.unchain_backward()  # frees the memory for the next graph
    lam = _name_of_lam(model)
    values = reported(observation, target.xp, (lam,) if lam else ())
    attributes = {}
    if isinstance(model, chainer.links.Classifier):
        kept = {name: getattr(model, name) for name in ("y", "loss", "accuracy")}
        attributes = {
            name: None if value is None else chainer.as_array(value)
            for name, value in kept.items()
        }
        for name, value in attributes.items():
            if not isinstance(value, (NoneType, target.xp.ndarray)):
                kind = type(value).__name__
                raise CannotReplayError(f"{name} of the classifier is a {kind}")
    grads = [param.grad for param in initialized(target)]
    target.cleargrads()  # they are set after each replay
    return _Computed(values, attributes, grads)
