from __future__ import annotations

import operator
from collections.abc import Callable, Iterable

import chainer

from chainer_mmix.links.states import Mixing, of_parts, parts_of, take_target
from chainer_mmix.mixing.points import resolve


class MixupSequential(chainer.Sequential):
    """A :class:`chainer.Sequential` that can mix between its layers.

    It is made from (layer, eligible) pairs; a layer is a link or any other callable.
    ``eligible`` says whether the layer's *input* may be mixed. In the paper's terms,
    mixing point ``k`` is :math:`g_{k-1}`, the output of layer ``k - 1``; point 0 is
    the input of the network::

        net = MixupSequential(
            (L.Linear(None, 1024), False),
            (F.relu, False),
            (L.Linear(1024, 1024), True),  # mixes the output of relu
            (F.relu, False),
            (L.Linear(1024, 10), False),
        )
        model = ManifoldMixupClassifier(net)

    It is a list, like :class:`chainer.Sequential`: indexing returns a layer, a slice
    returns a :class:`MixupSequential`. A bare layer that is added later is not
    eligible, and one that is assigned to an index keeps the flag of the old layer; a
    pair sets both. A list inside the list is one layer, whose flags count only after
    :meth:`flatten`. The weights have the same names as in a
    :class:`chainer.Sequential` with the same layers, so the two can exchange files.

    Source: the TensorFlow implementation of Manifold Mixup (the list of pairs),
    arXiv 1806.05236 (the numbering).

    Args:
        pairs: Pairs of a callable and a bool.

    Raises:
        TypeError: If an argument is not such a pair.
    """

    def __init__(self, *pairs: tuple[Callable, bool]) -> None:
        super().__init__()
        self._assign([_pair(pair) for pair in pairs])

    def _assign(self, pairs: list[tuple[Callable, bool]]) -> None:
        # Chainer's order of the children, which names the weights, is not that of the
        # layers.
        plain = chainer.Sequential(*(layer for layer, _ in pairs))
        self._layers, self._children = plain._layers, plain._children
        self._eligible = [eligible for _, eligible in pairs]

    @property
    def _pairs(self) -> list[tuple[Callable, bool]]:
        return list(zip(self._layers, self._eligible, strict=True))

    @property
    def mixup_layers(self) -> tuple[int, ...]:
        """The mixing points, indices of the layers whose input may be mixed."""
        return tuple(k for k, eligible in enumerate(self._eligible) if eligible)

    def forward(self, *x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        """Calls the layers in order, and mixes the input of one of them.

        Args:
            x (~chainer.Variable or array): Inputs of the first layer. When mixing, the
                target follows them, unless it comes by name.
            target (~chainer.Variable or array): Array of shape (N, ...), when mixing.
            mixup_hidden (bool): Whether to mix. The default is ``False``.
            lam (float or array): Weight of the first partner, a number or of shape
                (N,).
            layer_mix (int): Index of the layer whose input is mixed, with all its
                parts; ``None`` draws an eligible layer from :mod:`numpy.random`.

        Returns:
            The result ``y`` of the last layer, or ``(y, target_a, target_b)`` when
            mixing.

        Raises:
            TypeError: If there is no target, or the layer's input does not consist of
                float arrays, or has lengths or a mask that differ among samples.
            ValueError: If no layer is eligible, or the layer's input does not have one
                row per sample.
        """
        if not mixup_hidden:
            return super().forward(*x)
        if target is None:
            x, target = take_target(x)
        points = self.mixup_layers
        if not points:
            raise ValueError(
                "no layer of this MixupSequential is eligible for mixing: give one the "
                "flag True, as in net[0] = (net[0], True), or flatten() a list of lists"
            )
        layer_mix = resolve(layer_mix, points, self)
        h = tuple(x)
        for k, layer in enumerate(self):
            if k == layer_mix:
                mixing = Mixing("input", target, lam)
                mixed, _ = mixing.mix_inputs(parts_of(h), {})
                h = of_parts(h, tuple(mixed))
            h = layer(*h) if isinstance(h, tuple) else layer(h)
        return h, *mixing.targets

    def __getitem__(self, i):
        if isinstance(i, slice):
            return MixupSequential(*self._pairs[i])
        return self._layers[i]

    def __setitem__(self, i: int, layer) -> None:
        i = operator.index(i)
        pairs = self._pairs
        pairs[i] = _pair(layer, self._eligible[i])
        self._assign(pairs)

    def __delitem__(self, i) -> None:
        pairs = self._pairs
        del pairs[i]
        self._assign(pairs)

    def insert(self, i: int, layer) -> None:
        if not -len(self) <= i <= len(self):
            raise IndexError(f"index {i} is out of range for {len(self)} layers")
        pairs = self._pairs
        pairs.insert(i, _pair(layer, False))
        self._assign(pairs)

    def extend(self, layers: Iterable) -> None:
        if isinstance(layers, MixupSequential):
            layers = layers._pairs
        self._assign(self._pairs + [_pair(layer, False) for layer in layers])

    def __iadd__(self, other: chainer.Sequential) -> MixupSequential:
        if isinstance(other, MixupSequential):
            self.extend(other)
            return self
        return super().__iadd__(other)

    def __add__(self, other: chainer.Sequential) -> MixupSequential:
        total = self[:]
        total += other
        return total

    def __radd__(self, other: chainer.Sequential) -> MixupSequential:
        return MixupSequential() + other + self

    def reverse(self) -> None:
        self._assign(self._pairs[::-1])

    def clear(self) -> None:
        self._assign([])

    def copy(self, mode: str = "share") -> MixupSequential:
        """Copies the layers; see :meth:`chainer.Link.copy` for the modes."""
        layers = super().copy(mode)
        return MixupSequential(*zip(layers, self._eligible, strict=True))

    def addgrads(self, link: chainer.Sequential) -> None:
        # ChainList's looks its children up among the layers.
        for child, other in zip(self.children(), link.children(), strict=True):
            child.addgrads(other)

    def repeat(self, n_repeat: int, mode: str = "init") -> MixupSequential:
        """Returns a list of ``n_repeat`` copies of this list, as in Chainer.

        Each copy is one layer, eligible if its first layer is. The other flags count
        after :meth:`flatten`.
        """
        eligible = self._eligible[:1] == [True]
        blocks = super().repeat(n_repeat, mode)
        return MixupSequential(*((block, eligible) for block in blocks))

    def flatten(self) -> MixupSequential:
        """Returns one list of the layers of this list and of those inside it.

        The first layer of a list that was eligible is eligible.
        """
        flat = []
        for layer, eligible in self._pairs:
            inner = [(layer, False)]
            if isinstance(layer, chainer.Sequential):
                inner = (MixupSequential() + layer).flatten()._pairs
            flat += [(f, e or (eligible and i == 0)) for i, (f, e) in enumerate(inner)]
        return MixupSequential(*flat)

    def __str__(self) -> str:
        text = super().__str__()
        for k in self.mixup_layers:
            text = text.replace(f"\n  ({k}): ", f"\n  ({k}, input may be mixed): ", 1)
        return text

    __repr__ = __str__


def _pair(item, eligible: bool | None = None) -> tuple[Callable, bool]:
    """Checks a pair, or completes a bare layer where ``eligible`` is given."""
    if eligible is not None and callable(item):
        return item, eligible
    if isinstance(item, tuple) and len(item) == 2:
        layer, eligible = item
        if callable(layer) and isinstance(eligible, bool):
            return item
    raise TypeError(
        "a layer of MixupSequential comes as a pair of a link or function and a bool, "
        f"such as (L.Linear(None, 10), True), not {item!r}"
    )
