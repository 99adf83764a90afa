from __future__ import annotations

from typing import Any

import chainer
import numpy as np
from chainer.backends import cuda

from chainer_mmix.training.extensions.random_state import RandomState
from chainer_mmix.training.multinode.shared_order import SharedOrder

_NUMPY = ("keys", "position", "has_gauss", "gauss")


class RankStates(RandomState):
    """Puts the states that differ among ranks into the snapshot.

    These are the state of :mod:`numpy.random`, from which dropout draws different masks
    on each rank, and the persistent arrays of the network, such as the statistics of
    batch normalisation in the middle of an epoch. The generator of the orders, which
    all ranks share, takes the place that
    :class:`~chainer_mmix.training.extensions.RandomState` gives to
    :mod:`numpy.random`, so that a single process continues with the same orders.

    The same number of ranks resumes bit-for-bit. Another number of ranks uses the mean
    of the persistent arrays, and new states of :mod:`numpy.random`.

    When it is made, it seeds :mod:`numpy.random` differently on each rank.

    Args:
        communicator (~chainermn.CommunicatorBase): One of ChainerMN's communicators.
        order (SharedOrder): The order of the examples.
        model (~chainer.Link): The network.
    """

    def __init__(
        self, communicator: Any, order: SharedOrder, model: chainer.Link
    ) -> None:
        self._rank, self._size = communicator.rank, communicator.size
        self._order = order
        self._model = model
        self._parts: list[tuple] = []
        self._seed()

    def rank_part(self) -> tuple[tuple, dict[str, np.ndarray]]:
        """Returns what this rank alone knows."""
        _, *state = np.random.get_state()
        return tuple(state), self._persistents()

    def take_parts(self, parts: list[tuple]) -> None:
        """Takes what all ranks know, to be saved."""
        self._parts = parts

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or restores the states."""
        of_rank = np.random.get_state()
        np.random.set_state(self._order.random_state.get_state())
        super().serialize(serializer)
        self._order.random_state.set_state(np.random.get_state())
        np.random.set_state(of_rank)
        if isinstance(serializer, chainer.Deserializer):
            self._load(serializer)
        elif self._parts:
            self._save(serializer)

    def _save(self, serializer: chainer.Serializer) -> None:
        states, persistents = zip(*self._parts, strict=True)
        serializer("ranks", len(self._parts))
        for name, state in zip(_NUMPY, zip(*states, strict=True), strict=True):
            serializer(f"ranks_{name}", np.array(state))
        for name, own in persistents[0].items():
            values = [part[name] for part in persistents]
            if any(value.tobytes() != own.tobytes() for value in values):
                serializer(f"ranks_persistent{name}", np.array(values))

    def _load(self, serializer: chainer.Deserializer) -> None:
        try:
            size = int(serializer("ranks", None) or 1)
        except KeyError:  # the snapshot of a single process
            size = 1
        if size == self._size:
            saved = [serializer(f"ranks_{n}", None)[self._rank] for n in _NUMPY]
            np.random.set_state(("MT19937", *saved))
        else:
            self._seed()
        if size == 1:
            return
        for name, array in self._namedpersistents().items():
            try:
                values = serializer(f"ranks_persistent{name}", None)
            except KeyError:  # they were the same
                continue
            if values is None:
                continue
            same = size == self._size
            value = values[self._rank] if same else values.mean(axis=0)
            array[...] = chainer.get_device(self._model.device).send(
                value.astype(array.dtype)
            )

    def _seed(self) -> None:
        _, keys, position, *_ = self._order.random_state.get_state()
        np.random.seed([*map(int, keys[:8]), int(position), self._rank])

    def _namedpersistents(self) -> dict[str, Any]:
        found = {}
        for prefix, link in self._model.namedlinks():
            for name in link._persistent:
                value = link.__dict__[name]
                if isinstance(value, chainer.get_array_types()):
                    found[f"{prefix.rstrip('/')}/{name}"] = value
        return found

    def _persistents(self) -> dict[str, np.ndarray]:
        return {k: cuda.to_cpu(v) for k, v in self._namedpersistents().items()}
