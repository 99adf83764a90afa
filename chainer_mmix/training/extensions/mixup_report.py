from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import chainer
from chainer.training import extension, get_trigger, triggers

from chainer_mmix.links import ManifoldMixupClassifier
from chainer_mmix.runs.mixup import MixupCounts
from chainer_mmix.training.extensions.mixup_counter import BIN_EDGES, MixupCounter
from chainer_mmix.training.not_essential import not_essential
from chainer_mmix.training.trainer_parts import batch_size, classifier_of

# Others, such as functions, may fire in each iteration.
_TRIGGERS = tuple(kind for kind in vars(triggers).values() if isinstance(kind, type))


class MixupReport(extension.Extension):
    r"""Reports how often each point mixed, with which :math:`\lambda` and which loss.

    After each iteration, it reads the attribute ``draw`` of a
    :class:`~chainer_mmix.ManifoldMixupClassifier`, the draw of its last call; it draws
    nothing itself. If an updater trains several replicas, it sees the main one. On one
    rank of a multi-node optimizer, it sees that rank.

    For :class:`~chainer.training.extensions.LogReport`, it reports
    ``mixup/layer/<point>``, which is 1 if that point mixed and else 0, so that its mean
    is the share of iterations, and ``mixup/loss/<point>``, the loss of these
    iterations, if the classifier reports one. An iteration without mixing counts as the
    point ``none``, and one whose link chose the point itself as ``link``. A second
    report in a Trainer prefixes these keys with its name.

    At each trigger it writes a JSON file with

    - ``settings``: the arguments of the :class:`~chainer_mmix.MixupPolicy` when the run
      began or was resumed, with the points drawn from as ``layer_mix`` (``null`` if the
      link chooses); ``null`` if the classifier does not mix;
    - ``layer``: the number of iterations by mixing point, from the beginning;
    - ``loss``: the mean training loss by mixing point, from the beginning, weighted by
      the examples of each minibatch;
    - ``method``: the number of iterations by method, ``mixup``, ``cutmix``, ``fmix`` or
      ``resizemix``; the number of mixed samples if the policy draws for each pair or
      sample;
    - ``lam``: ``bin_edges`` (21 numbers from 0 to 1) and ``counts`` (20) of a histogram
      of all :math:`\lambda`, one per iteration, or one per mixed sample if the policy
      draws for each pair or sample.

    Args:
        filename (str): Name of the file in the output folder. The default is
            ``mixup.json``.
        trigger: When to write it; the default is each epoch. Give it here and not to
            :meth:`~chainer.training.Trainer.extend`, since each iteration is counted.
        classifier (~chainer_mmix.ManifoldMixupClassifier): The classifier. By default,
            it is the main optimizer's target, or else the only one that the updater
            trains. Without any, nothing mixes.
        communicator (~chainermn.CommunicatorBase): If it is given on every rank, rank 0
            writes one file with the iterations of all ranks, and a
            :class:`~chainer_mmix.training.multinode.RankSnapshot` saves them all. The
            default is ``None``: this process alone.

    Raises:
        ValueError: If there are several classifiers, or the Trainer would skip
            iterations, when the run begins.
        RuntimeError: If something mixes, but not the classifier.
    """

    # Before an Evaluator, which calls the classifier too and so resets its draw.
    priority = extension.PRIORITY_WRITER + 50

    _POLICY = (
        *("alpha", "per", "fold", "prob", "cutmix_alpha", "fmix_alpha", "switch_prob"),
        *("cutmix_minmax", "resizemix_minmax", "fixed_lam"),
    )

    def __init__(
        self,
        filename: str = "mixup.json",
        trigger: tuple[int, str] = (1, "epoch"),
        classifier: ManifoldMixupClassifier | None = None,
        communicator: Any = None,
    ) -> None:
        if not isinstance(filename, (str, os.PathLike)):
            raise TypeError(f"filename must be the name of a file, not {filename!r}")
        self._communicator = communicator
        if communicator is not None:
            self.priority += 100  # before an ObservationMean
        self._filename = filename
        self._classifier = classifier
        # Not self.trigger, by which the Trainer would skip iterations.
        self._write_trigger = get_trigger(trigger)
        self._settings: dict | None = None
        self._counter = MixupCounter(["none"])
        self._others: Sequence[MixupCounter] = ()  # on rank 0, when it is told them

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        self._check_trigger(trainer)
        target = self._classifier or classifier_of(trainer, type(self).__name__)
        self._classifier = target
        if target is not None and target.mixup_hidden:
            # All from the start: LogReport averages over what was reported.
            points = [*map(str, target.points or ["link"]), "none"]
            self._counter.layer = dict.fromkeys(points, 0) | self._counter.layer
            settings = {name: getattr(target.policy, name) for name in self._POLICY}
            self._settings = {k: v for k, v in settings.items() if v is not None}
            self._settings["layer_mix"] = list(target.points) or None

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        target = self._classifier
        draw = getattr(target, "draw", None)
        if draw is None:
            drawn = "none"
            if target is None:
                self._check_nothing_mixes(trainer.observation)
        else:
            drawn = "link" if draw.layer_mix is None else str(draw.layer_mix)
        self._counter.add(drawn, draw)
        prefix = "mixup"
        if self.name not in (None, self.default_name):
            prefix = f"{self.name}/mixup"
        names = trainer.reporter._observer_names
        loss = trainer.observation.get(f"{names.get(id(target), 'main')}/loss")
        if loss is not None:
            pair = loss, batch_size(trainer.updater)
            self._counter.loss.add({drawn: pair})
            # Other ranks may have drawn another point.
            shown = loss if self._communicator is None else pair
            trainer.observation[f"{prefix}/loss/{drawn}"] = shown
        for point in self._counter.layer:
            trainer.observation[f"{prefix}/layer/{point}"] = float(point == drawn)
        if self._write_trigger(trainer):
            if self._communicator is not None:
                self.take_parts(self._communicator.gather_obj(self.rank_part()))
            if self._communicator is None or self._communicator.rank == 0:
                self._write(Path(trainer.out))

    def _check_trigger(self, trainer: chainer.training.Trainer) -> None:
        for entry in trainer._extensions.values():
            trigger = entry.trigger
            if entry.extension is not self or not isinstance(trigger, _TRIGGERS):
                continue
            given: Any = type(trigger).__name__
            if isinstance(trigger, triggers.IntervalTrigger):
                given = trigger.period, trigger.unit
            if given != (1, "iteration"):
                raise ValueError(
                    "MixupReport has to count each iteration, but extend was given the "
                    f"trigger {given}: pass it to MixupReport(trigger={given})"
                )

    def _check_nothing_mixes(self, observation: dict) -> None:
        for key, value in observation.items():
            if key.endswith("/lam") and value != 1:
                raise RuntimeError(
                    f"something mixes ({key} is {value}), but MixupReport finds no "
                    "ManifoldMixupClassifier in the updater: pass it, as "
                    "MixupReport(..., classifier=model)"
                )

    def _write(self, out: Path) -> None:
        total = self._counter.plus(self._others)
        loss = {k: float(mean) for k, mean in total.loss.compute_mean().items()}
        counts = MixupCounts(
            settings=self._settings,
            layer=total.layer,
            loss=loss,
            method=total.method,
            bin_edges=BIN_EDGES,
            counts=total.lam,
        )
        with not_essential(out / self._filename):
            counts.write(out / self._filename)

    def rank_part(self) -> MixupCounter:
        """Returns what was counted on this rank."""
        return self._counter

    def take_parts(self, parts: Sequence[MixupCounter] | None) -> None:
        """Takes what all ranks have counted, on rank 0, to write or to save it."""
        self._others = (parts or ())[1:]

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or restores the counts."""
        if hasattr(self._write_trigger, "serialize"):
            self._write_trigger.serialize(serializer["_write_trigger"])
        parts = self._counter.serialize_parts(serializer, self._others)
        if self._communicator is None or not isinstance(
            serializer, chainer.Deserializer
        ):
            return
        if len(parts) == self._communicator.size:
            self._counter = parts[self._communicator.rank]
        elif self._communicator.rank:
            self._counter = MixupCounter(self._counter.layer)  # rank 0 has counted that
