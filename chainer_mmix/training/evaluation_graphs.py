from __future__ import annotations

import functools
import warnings
from collections.abc import Hashable
from typing import Any

import chainer
import numpy as np
from chainer import backend, reporter

from chainer_mmix.links import ManifoldMixupClassifier
from chainer_mmix.training.multinode.silence import silence
from chainer_mmix.training.replay import (
    MANY,
    Kind,
    Static,
    capture,
    copied,
    links_of,
    reported,
)
from chainer_revive.cpu import compiled
from chainer_revive.cpu.graphs import CpuGraphs
from chainer_revive.cpu.steps import CannotReplayError

# Batches of a kind in one evaluation that run as usual before it is recorded. A last,
# smaller one is not worth it: to record it takes as long as some hundred replays save.
_N_WARMUP = 3
_FORWARDS = chainer.links.Classifier.forward, ManifoldMixupClassifier.forward


class EvaluationGraphs:
    """Replays what a classifier computes and reports of a batch, on a CPU.

    Args:
        target (~chainer.links.Classifier): Whose evaluation this is.

    Raises:
        ValueError: If it is on a CPU without compiled loops.

    Attributes:
        reason (str): Why nothing can be replayed; ``None`` as long as it can.
        places (dict): For :func:`~chainer_mmix.training.isolation.isolated`, so that
            records find the arrays again that they have read.
    """

    def __init__(self, target: chainer.Link) -> None:
        self.__setstate__({"reason": None})
        if isinstance(target.device, backend.CpuDevice):
            self._start(target)

    def __getstate__(self) -> dict:
        """Leaves out what was recorded, for copies record anew."""
        return {"reason": self.reason}

    def __setstate__(self, state: dict) -> None:
        self.reason: str | None = state["reason"]
        self.places: dict[Hashable, np.ndarray] = {}
        self._target: chainer.Link | None = None

    def _start(self, target: chainer.Link) -> None:
        self._graphs = CpuGraphs(
            functools.partial(links_of, target, target), fixed=True
        )
        self._target = target
        self._kinds: dict[Hashable, Kind[dict[str, tuple[bool, Any]]]] = {}
        self._statics: dict[Hashable, Static] = {}

    def report(self, target: chainer.Link, args: tuple, kwargs: dict) -> bool:
        """Reports what a target reports of a batch, if it may be replayed.

        Args:
            target (~chainer.Link): The target.
            args, kwargs: The batch.

        Returns:
            bool: Whether it did.
        """
        is_on_cpu = isinstance(target.device, backend.CpuDevice)
        if self.reason or not is_on_cpu or compiled.loops(np.dtype("f")) is None:
            return False
        if target is not self._target:
            self._start(target)
        arrays = *args, *kwargs.values()
        if getattr(target.forward, "__func__", None) not in _FORWARDS:
            self._give_up(f"{type(target).__name__} has a forward of its own")
            return False
        if not all([type(a) is np.ndarray and a.dtype.kind in "biuf" for a in arrays]):
            self._give_up("the inputs of the classifier are not arrays of numbers")
            return False
        setting = self._graphs.setting()
        if setting is None or any([link._local_link_hooks for link in target.links()]):
            return False
        form = len(args), *kwargs, *[(a.shape, a.dtype, a.strides) for a in arrays]
        names = reporter.get_current_reporter()._observer_names
        # It may be set for a whole class.
        accuracy = getattr(target, "compute_accuracy", None)
        if len(self._kinds) > MANY:  # of batches that are never alike
            self._start(target)
        kind = self._kinds.setdefault((form, setting, accuracy, *names.items()), Kind())
        kind.n += 1
        if kind.n <= _N_WARMUP:
            return False
        static = self._statics.get(form)
        if static is None:
            static = self._statics[form] = Static(args, kwargs)
        static.fill(args, kwargs, None, None)
        try:
            if kind.replay is None:
                _check_links(target)
                compute = functools.partial(_compute, target, static)
                inputs = static.arrays()
                kind.replay = capture(self._graphs, compute, inputs, (target,))
            values = kind.replay()
        except CannotReplayError as e:
            self._give_up(str(e))
            return False
        _forget(target)
        chainer.report(copied(values))
        return True

    def end(self) -> None:
        """Ends an evaluation: frees memory, and forgets what was too rare to record."""
        if self._target is not None:
            self._graphs.free()
            self._kinds = {k: kind for k, kind in self._kinds.items() if kind.replay}

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        self._target = None
        self._graphs.free()
        warnings.warn(
            "an evaluation cannot be recorded and replayed, so all batches run as "
            f"usual ({reason})",
            stacklevel=2,
        )


def _check_links(target: chainer.Link) -> None:
    """Sees whether all links are children: others are new copies in each evaluation.

    Raises:
        CannotReplayError: If they are not.
    """
    every = {link for root in links_of(target, target, True) for link in root.links()}
    if len(every) > len(list(target.links())):
        raise CannotReplayError("a link, or the loss, holds links that are no children")


def _compute(target: chainer.Link, static: Static) -> dict[str, tuple[bool, Any]]:
    """Returns what a target reports."""
    observation: dict[str, Any] = {}
    # Other than chainer.report_scope, it ends if there is an error.
    with reporter.get_current_reporter().scope(observation), silence():
        target(*static.args, **static.kwargs)
    _forget(target)
    return reported(observation, np)


def _forget(target: Any) -> None:
    """Keeps nothing of a batch, which a replay would write over."""
    target.y = target.loss = target.accuracy = None
