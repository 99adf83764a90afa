from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import threading
import weakref
from collections.abc import Iterator, Sequence

import chainer
import numpy as np

_active = threading.local()


@dataclasses.dataclass
class MixupDraw:
    """What one training step mixes: where, how much and with whom.

    Attributes:
        layer_mix: The mixing point, or ``None`` if the link is to choose.
        lam: Weight of the first partner in :math:`[0, 1]`: a float for the whole
            batch, or a float32 array of shape :math:`(N,)`, one a sample.
        perm: Integer array of shape :math:`(N,)`: sample ``n`` is mixed with sample
            ``perm[n]``.
        times_mixed: How often :func:`~chainer_mmix.mixup_data` has mixed with this
            draw so far.
        mixed: Weak reference to the graph's node of what it returned last, which
            lives as long as something is computed from it; ``None`` without a graph.
    """

    layer_mix: int | str | None
    lam: float | np.ndarray
    perm: np.ndarray
    times_mixed: int = 0
    mixed: weakref.ref | None = None


@contextlib.contextmanager
def using_draw(draw: MixupDraw) -> Iterator[MixupDraw]:
    """Makes :func:`~chainer_mmix.mixup_data` take its permutation from ``draw``.

    It holds for the calling thread, until the ``with`` block ends.
    """
    outer = current_draw()
    _active.draw = draw
    try:
        yield draw
    finally:
        _active.draw = outer


def current_draw() -> MixupDraw | None:
    """Returns the draw that is active in this thread, or ``None``."""
    return getattr(_active, "draw", None)


class MixupPolicy:
    r"""Draws what to mix: a layer, :math:`\lambda` and a permutation.

    :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)` is sampled in float64, since a
    small :math:`\alpha` underflows in float32. The policy owns its random generator,
    so one seed fixes a run, and
    :class:`~chainer_mmix.ManifoldMixupClassifier` saves its state in a snapshot.

    Source: arXiv 1806.05236, section 2. There, one layer and one :math:`\lambda`
    serve a whole minibatch.

    Args:
        alpha (float): Parameter of the Beta distribution; 0 means no mixing
            (:math:`\lambda = 1`). The paper uses 2 on CIFAR and 0.2 on
            Tiny-ImageNet. The default is 0.2.
        layer_mix: The mixing points to draw from: one point, a sequence of them, or
            ``None`` for those that the link offers.
        per (str): ``"batch"`` for one :math:`\lambda` a minibatch (the default) or
            ``"sample"`` for one a sample.
        seed (int): Seed of the generator (PCG64); ``None``, the default, for an
            unpredictable one.

    Raises:
        TypeError: If a mixing point is neither an integer nor a string.
        ValueError: If ``alpha`` is negative, NaN or infinite, if ``layer_mix`` is
            empty, or if ``per`` is unknown.
    """

    def __init__(
        self,
        alpha: float = 0.2,
        layer_mix: int | str | Sequence[int | str] | None = None,
        per: str = "batch",
        seed: int | None = None,
    ) -> None:
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(
                f"alpha must be a finite number >= 0 (0: no mixing), not {alpha}"
            )
        if per not in ("batch", "sample"):
            raise ValueError(f"per must be 'batch' or 'sample', not {per!r}")
        if layer_mix is not None:
            points = [layer_mix] if np.isscalar(layer_mix) else list(layer_mix)
            for point in points:
                if not isinstance(point, (int, np.integer, str)):
                    raise TypeError(
                        f"a mixing point is an integer or a name, not {point!r}"
                    )
            if not points:
                raise ValueError("layer_mix is empty: name a layer, or pass None")
            layer_mix = tuple(p if isinstance(p, str) else int(p) for p in points)
        self.alpha = float(alpha)
        self.layer_mix = layer_mix
        self.per = per
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def draw(self, batch_size: int, points: Sequence[int | str] = ()) -> MixupDraw:
        """Draws for one minibatch.

        Args:
            batch_size (int): The number of samples :math:`N`.
            points: The mixing points of the link, used when the policy was made
                without ``layer_mix``. If it is empty, the link is left to choose.

        Returns:
            MixupDraw: A layer, :math:`\\lambda` and a permutation, independent of one
            another and uniform but for :math:`\\lambda`.
        """
        points = self.layer_mix or points
        layer = points[self._rng.integers(len(points))] if points else None
        size = batch_size if self.per == "sample" else None
        if self.alpha == 0:
            lam = 1.0 if size is None else np.ones(size)
        else:
            lam = self._rng.beta(self.alpha, self.alpha, size)
        lam = float(lam) if size is None else lam.astype(np.float32)
        return MixupDraw(layer, lam, self._rng.permutation(batch_size))

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or restores the state of the random generator."""
        # As bytes, since Chainer's HDF5 serializer takes no strings.
        if isinstance(serializer, chainer.Deserializer):
            state = np.asarray(serializer("rng", None)).tobytes()
            self._rng.bit_generator.state = json.loads(state)
        else:
            state = json.dumps(self._rng.bit_generator.state).encode()
            serializer("rng", np.frombuffer(state, np.uint8))
