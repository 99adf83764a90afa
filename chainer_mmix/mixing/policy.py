from __future__ import annotations

import inspect
import json
import math
import numbers
from collections.abc import Sequence
from typing import Any

import chainer
import numpy as np

from chainer_mmix.mixing.draw import MixupDraw
from chainer_mmix.mixing.points import as_points


def check_seed(seed: int | None) -> None:
    """Raises a TypeError or a ValueError unless a seed is one, or ``None``."""
    if seed is None:
        return
    if not isinstance(seed, numbers.Integral):
        raise TypeError(f"seed must be a whole number or None, not {seed!r}")
    if seed < 0:
        raise ValueError(f"seed must be >= 0, not {seed}")


class MixupPolicy:
    r"""Draws what to mix: a layer, :math:`\lambda` and a permutation.

    :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)` is sampled in float64, since a
    small :math:`\alpha` underflows in float32. The policy owns its random generator,
    so one seed fixes a run. Its state is part of a Trainer's snapshot, but not of a
    file of weights.

    ``alpha``, ``prob`` and the other numbers are attributes that may be changed at any
    time, such as by :class:`~chainer_mmix.training.extensions.MixupShift`.

    Source: arXiv 1806.05236, section 2. There, one layer and one :math:`\lambda`
    serve a whole minibatch. Pairs, CutMix and switching follow timm's ``Mixup``.

    Args:
        alpha (float): Parameter of the Beta distribution; 0 means no mixing
            (:math:`\lambda = 1`). The paper uses 2 on CIFAR and 0.2 on
            Tiny-ImageNet. The default is 0.2.
        layer_mix: The mixing points to draw from: one point, a sequence of them, or
            ``None`` for those that the link offers.
        per (str): ``"batch"`` for one :math:`\lambda` a minibatch (the default),
            ``"sample"`` for one a sample, or ``"pair"`` for one a pair: the samples
            are paired off at random, and both of a pair are mixed with the other
            (the odd one out with itself).
        fold (bool): Whether to use :math:`\max(\lambda, 1 - \lambda)`, so that the
            first partner weighs more. The default is ``False``, as in the paper.
        prob (float): Probability that a minibatch is mixed at all. The default is 1.
        cutmix_alpha (float): As ``alpha``, for CutMix (arXiv 1905.04899): a box of
            the share :math:`1 - \lambda` of a map is taken from the partner, and
            :math:`\lambda` corrected to what is left after clipping and rounding it.
            The mixing points must be maps, :math:`(N, C, H, W)` or with another
            number of axes from 1 to 3 in place of :math:`H, W`. The default is 0: no
            CutMix. With ``alpha=0`` there is nothing else.
        switch_prob (float): Probability of CutMix, not mixup, where both have an
            alpha. The default is 0.5.
        seed (int): Seed of the generator (PCG64); ``None``, the default, for an
            unpredictable one.
        fixed_lam (float): :math:`\lambda` itself, in :math:`[0, 1]`, in place of what
            is drawn; the alphas then only tell whether there is mixup and CutMix, and
            layers and partners are those of the same seed without it. ``None``, the
            default, to draw :math:`\lambda`.

    Raises:
        TypeError: If a mixing point is neither an integer nor a string.
        ValueError: If an alpha is negative, NaN or infinite, a probability or
            ``fixed_lam`` is outside :math:`[0, 1]`, ``layer_mix`` is empty, or ``per``
            is unknown.
    """

    def __init__(
        self,
        alpha: float = 0.2,
        layer_mix: int | str | Sequence[int | str] | None = None,
        per: str = "batch",
        fold: bool = False,
        prob: float = 1.0,
        cutmix_alpha: float = 0.0,
        switch_prob: float = 0.5,
        seed: int | None = None,
        fixed_lam: float | None = None,
    ) -> None:
        if per not in ("batch", "pair", "sample"):
            raise ValueError(f"per must be 'batch', 'pair' or 'sample', not {per!r}")
        self.alpha = float(alpha)
        self.layer_mix = as_points(layer_mix)
        self.per = per
        self.fold = fold
        self.prob = float(prob)
        self.cutmix_alpha = float(cutmix_alpha)
        self.switch_prob = float(switch_prob)
        self.fixed_lam = None if fixed_lam is None else float(fixed_lam)
        self._check()
        check_seed(seed)
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def _check(self) -> None:
        # Each time, since extensions may shift them.
        for name in ("alpha", "cutmix_alpha"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"{name} must be a finite number >= 0 (0: none of it), not {value}"
                )
        for name in ("prob", "switch_prob", "fixed_lam"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {value}")

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self)).parameters.values()
        values = {p.name: getattr(self, p.name, p.default) for p in parameters}
        told = [
            f"{p.name}={values[p.name]!r}"
            for p in parameters
            if p.name == "alpha" or values[p.name] != p.default
        ]
        return f"{type(self).__name__}({', '.join(told)})"

    @property
    def mixes(self) -> bool:
        """Whether it can mix anything, with its present attributes."""
        self._check()
        return self.prob > 0 and (self.alpha > 0 or self.cutmix_alpha > 0)

    def draw(
        self, batch_size: int, points: Sequence[int | str] = ()
    ) -> MixupDraw | None:
        """Draws for one minibatch.

        Args:
            batch_size (int): The number of samples :math:`N`.
            points: The mixing points of the link, used when the policy was made
                without ``layer_mix``. If it is empty, the link is left to choose.

        Returns:
            MixupDraw: A layer, :math:`\\lambda` and a permutation, independent of one
            another and uniform but for :math:`\\lambda`; or ``None`` if this minibatch
            is not to be mixed.
        """
        if not self.mixes or (self.prob < 1 and self._rng.random() >= self.prob):
            return None
        points = self.layer_mix or points
        layer = points[int(self._rng.integers(len(points)))] if points else None
        cut = self.cutmix_alpha > 0
        if cut and self.alpha > 0:
            cut = self._rng.random() < self.switch_prob
        alpha = self.cutmix_alpha if cut else self.alpha
        n_pair = (batch_size + 1) // 2
        size = {"batch": None, "pair": n_pair, "sample": batch_size}[self.per]
        lam: Any = self._rng.beta(alpha, alpha, size)
        if self.fixed_lam is not None:
            lam = np.full(np.shape(lam), self.fixed_lam)
        if self.fold:
            lam = np.maximum(lam, 1 - lam)
        perm = self._rng.permutation(batch_size)
        center = None
        if cut:
            center = self._rng.random(3 if size is None else (size, 3))
        if self.per == "pair":
            perm, pair = _pair_off(perm)
            lam = lam[pair]
            center = None if center is None else center[pair]
        lam = float(lam) if size is None else lam.astype(np.float32)
        return MixupDraw(layer, lam, perm, center)

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or restores the state of the random generator.

        A file without one, such as a snapshot of a training without mixing, leaves the
        generator as it is.

        Raises:
            ValueError: If the file has something else in its place.
        """
        # As bytes, since Chainer's HDF5 serializer takes no strings.
        if not isinstance(serializer, chainer.Deserializer):
            state = json.dumps(self._rng.bit_generator.state).encode()
            serializer("rng", np.frombuffer(state, np.uint8))
            return
        try:
            saved = serializer("rng", None)
        except (KeyError, ValueError):  # the latter from HDF5
            return
        if saved is not None:
            self._rng.bit_generator.state = _read_state(np.asarray(saved))


def _pair_off(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs neighbours in a random order.

    Returns:
        tuple: The partner of each sample, and the number of its pair.
    """
    place = np.argsort(order)
    partner = np.minimum(place ^ 1, len(order) - 1)  # the odd one out has none
    return order[partner], place // 2


def _read_state(saved: np.ndarray) -> dict:
    generator = np.random.PCG64(0)
    try:
        state = json.loads(saved.tobytes())
        generator.state = state
        if generator.state != state:
            raise ValueError("its numbers are out of range")
    except (ValueError, TypeError, KeyError, OverflowError) as e:
        raise ValueError(
            "policy/rng in the file is not the state of a policy's generator (PCG64): "
            f"{e}; resume from another snapshot, or load its weights alone, by the "
            "model's path in the file"
        ) from e
    return state
