from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import chainer
import numpy as np
from chainer.reporter import DictSummary

BIN_EDGES = np.linspace(0, 1, 21)


class MixupCounter:
    """Counts what is mixed, on one rank or on several.

    Attributes:
        layer (dict): Iterations by mixing point.
        method (dict): Iterations by method, or mixed samples if each has its own λ.
        lam (numpy.ndarray): Histogram of λ.
        loss (~chainer.reporter.DictSummary): Losses by mixing point.
    """

    def __init__(self, points: Iterable[str] = ()) -> None:
        self.layer = dict.fromkeys(points, 0)
        self.method = {"mixup": 0, "cutmix": 0}
        self.lam = np.histogram([], bins=BIN_EDGES)[0]
        self.loss = DictSummary()

    def add(self, point: str, draw: Any) -> None:
        """Counts an iteration, and what its draw mixed, if there was one."""
        self.layer[point] = self.layer.get(point, 0) + 1
        if draw is not None:
            methods, lam = np.broadcast_arrays(draw.method, draw.lam)
            is_mixed = methods != "none"
            self.lam += np.histogram(lam[is_mixed], bins=BIN_EDGES)[0]
            for method in methods[is_mixed]:
                self.method[method] = self.method.get(method, 0) + 1

    def plus(self, others: Sequence[MixupCounter]) -> MixupCounter:
        """Returns the sum of this one and of others."""
        total = MixupCounter()
        for one in (self, *others):
            for counts, more in ((total.layer, one.layer), (total.method, one.method)):
                for key, n in more.items():
                    counts[key] = counts.get(key, 0) + n
            total.lam = total.lam + one.lam
            for key, own in one.loss._summaries.items():
                summed = total.loss._summaries[key]
                for name, value in vars(own).items():  # its three sums
                    setattr(summed, name, getattr(summed, name) + value)
        return total

    def dump(self) -> str:
        """Returns all of it as JSON."""
        loss = {
            key: {k: int(v) if k == "_n" else float(v) for k, v in vars(own).items()}
            for key, own in self.loss._summaries.items()
        }
        return json.dumps([self.layer, self.method, self.lam.tolist(), loss])

    @classmethod
    def load(cls, text: str) -> MixupCounter:
        """Returns what :meth:`dump` has written."""
        counter = cls()
        counter.layer, counter.method, lam, loss = json.loads(text)
        counter.lam = np.array(lam, counter.lam.dtype)
        for key, sums in loss.items():
            vars(counter.loss._summaries[key]).update(sums)
        return counter

    def serialize(self, serializer: Any) -> None:
        """Saves or restores it."""
        layer = json.loads(serializer("_layer", json.dumps(self.layer)))
        self.layer = {**self.layer, **layer}
        self.loss.serialize(serializer["_loss"])
        self.method = json.loads(serializer("_method", json.dumps(self.method)))
        self.lam = serializer("_lam", self.lam)

    def serialize_parts(
        self, serializer: chainer.AbstractSerializer, others: Sequence[MixupCounter]
    ) -> list[MixupCounter]:
        """Saves or restores this one, of the first rank, and those of the others.

        The sum of all is saved too, which is what another number of ranks goes on with.

        Returns:
            list of MixupCounter: Those of all ranks that have saved.
        """
        if not isinstance(serializer, chainer.Deserializer):
            self.plus(others).serialize(serializer)
            if others:
                serializer("_ranks", json.dumps([t.dump() for t in (self, *others)]))
            return [self, *others]
        self.serialize(serializer)
        try:
            saved = str(serializer("_ranks", ""))
        except KeyError:
            saved = ""
        if not saved:  # of one process
            return [self]
        return [self.load(text) for text in json.loads(saved)]
