"""The draw of a training step, and a record of what was mixed by it."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import weakref
from collections.abc import Iterator

import numpy as np

from chainer_mmix.mixing.weights import Weights

_active = threading.local()


@dataclasses.dataclass(frozen=True, eq=False)
class MixupDraw:
    """The draw of one training step: where, how much and with whom it mixes.

    Attributes:
        layer_mix: The mixing point, or ``None`` to let the link choose.
        lam: Weight of the first partner in :math:`[0, 1]`: a float for the whole
            batch, or a float32 array of shape :math:`(N,)` with one per sample.
        perm: Integer array of shape :math:`(N,)`: sample ``n`` is mixed with sample
            ``perm[n]``.
        center: Three random numbers in :math:`[0, 1)` that say where to paste, an
            array of shape :math:`(3,)`, or :math:`(N, 3)` if ``lam`` is an array. For
            CutMix, they are the centre of the box, as shares of the axes of the map;
            for ResizeMix, and for CutMix with ``sides``, they place the box within the
            map; for FMix, they seed the noise. ``None`` if nothing is pasted.
        method: ``"mixup"``, ``"cutmix"``, ``"fmix"`` or ``"resizemix"``. If ``lam`` is
            an array, it may be an array of shape :math:`(N,)` of these, and of
            ``"none"`` for samples that are not mixed. The default is CutMix with a
            ``center``, else mixup.
        sides: The sides of CutMix's boxes as shares of the axes of the map, of the
            shape of ``center``; ``None``, the default, if they follow from ``lam``.
    """

    layer_mix: int | str | None
    lam: float | np.ndarray | Weights
    perm: np.ndarray
    center: np.ndarray | None = None
    method: str | np.ndarray = ""
    sides: np.ndarray | None = None

    def __post_init__(self) -> None:
        if isinstance(self.method, str) and not self.method:
            default = "mixup" if self.center is None else "cutmix"
            object.__setattr__(self, "method", default)


@dataclasses.dataclass(eq=False)
class Mixture:
    """The draw of a forward pass, and a record of what it has mixed so far.

    Attributes:
        draw: The draw. Once regions have been pasted, its ``lam`` is the share of the
            map that is left.
        times_mixed: How often :func:`~chainer_mmix.mixup_data` has been called.
        mixed: Weak references to its last results: arrays, or the graph nodes of
            Variables, which live as long as something is computed from them. Empty
            without a graph.
        unmixed: The last arrays that it was given, if it returned arrays.
        targets: The targets of both partners that it returned last.
        is_known: Whether the network has asked for the draw.
        may_be_cut: Whether the results need not lead to the outputs in the graph.
    """

    draw: MixupDraw
    times_mixed: int = 0
    mixed: tuple[weakref.ref, ...] = ()
    unmixed: tuple = ()
    targets: tuple = ()
    is_known: bool = False
    may_be_cut: bool = False


@contextlib.contextmanager
def using_draw(draw: MixupDraw) -> Iterator[Mixture]:
    """Makes :func:`~chainer_mmix.mixup_data` take its permutation from ``draw``.

    This applies to the calling thread, until the ``with`` block ends.

    Yields:
        Mixture: The draw, and what is mixed within the block.
    """
    outer = current_mixture()
    _active.mixture = mixture = Mixture(draw)
    try:
        yield mixture
    finally:
        _active.mixture = outer


def current_mixture() -> Mixture | None:
    """Returns what the running forward pass of this thread has mixed, or ``None``."""
    return getattr(_active, "mixture", None)


def current_draw() -> MixupDraw | None:
    """Returns the draw of the running forward pass.

    A link calls it in its ``forward``, before or after mixing, for inputs that
    :func:`~chainer_mmix.mixup_data` cannot mix, for example to combine the masks of
    both partners::

        draw = chainer_mmix.current_draw()
        if draw is not None:
            mask = mask | mask[draw.perm]

    Returns:
        MixupDraw: Its ``perm``, ``lam`` and ``layer_mix``, the same for the whole
        pass. ``None`` outside of a classifier, in evaluation, and in steps that are not
        mixed. Within a :class:`~chainer_mmix.training.GraphUpdater`, ``perm`` may be
        an array on the device, and ``lam`` an opaque object that only
        :func:`~chainer_mmix.mixup_data` takes.
    """
    mixture = current_mixture()
    if mixture is None:
        return None
    mixture.is_known = True
    return mixture.draw
