from __future__ import annotations

import inspect
import json
import math
import numbers
from collections.abc import Sequence
from typing import Any

import chainer
import numpy as np

from chainer_mmix.checks import check_bool, check_whole
from chainer_mmix.mixing.draw import MixupDraw
from chainer_mmix.mixing.points import as_points


def check_seed(seed: int | None) -> None:
    """Raises a TypeError or a ValueError unless a seed is one, or ``None``."""
    if seed is None:
        return
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool):
        raise TypeError(f"seed must be a whole number or None, not {seed!r}")
    if seed < 0:
        raise ValueError(f"seed must be >= 0, not {seed}")


def _check_float(name: str, value: Any) -> None:
    try:
        if isinstance(value, (bool, np.bool_, str, bytes)):
            raise TypeError
        float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, not {value!r}") from None


def _bounds(name: str, bounds: Sequence[float] | None) -> tuple[float, float] | None:
    if bounds is None:
        return None
    if isinstance(bounds, str) or np.shape(bounds) != (2,):
        raise ValueError(f"{name} must be two numbers, not {bounds!r}")
    low, high = bounds
    _check_float(name, low)
    _check_float(name, high)
    return float(low), float(high)


class MixupPolicy:
    r"""Draws a mixing point, :math:`\lambda` and a permutation for each minibatch.

    :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)` is sampled in float64, since a
    small :math:`\alpha` underflows in float32. The policy has its own random generator,
    so one seed determines a run. Its state is part of a Trainer's snapshot, but not of
    a file of weights.

    ``alpha``, ``prob`` and the other numbers are attributes that may be changed at any
    time, for example by :class:`~chainer_mmix.training.extensions.MixupShift`.

    Under :func:`chainermn.create_multi_node_optimizer`, each rank draws for itself. All
    ranks share the generator of rank 0 and derive their own from each number that it
    draws. Thus only one state is saved, with which any number of ranks may resume.

    Source: arXiv 1806.05236, section 2. There, one layer and one :math:`\lambda`
    serve a whole minibatch. Pairs, CutMix and its bounds, and draws for each pair or
    sample follow timm's ``Mixup``; FMix is from arXiv 2002.12047, ResizeMix from
    arXiv 2012.11101.

    Args:
        alpha (float): Parameter of the Beta distribution; 0 means no mixing
            (:math:`\lambda = 1`). The paper uses 2 on CIFAR and 0.2 on
            Tiny-ImageNet. The default is 0.2.
        layer_mix: The mixing points to draw from: one point, a sequence of points, or
            ``None``, the default, for those that the link offers.
        per (str): ``"batch"`` for one :math:`\lambda` per minibatch (the default),
            ``"sample"`` for one per sample, or ``"pair"`` for one per pair: the samples
            are paired at random, and each is mixed with the other (the odd one out with
            itself).
        fold (bool): Whether to use :math:`\max(\lambda, 1 - \lambda)`, so that the
            first partner weighs more. The default is ``False``, as in the paper.
        prob (float): Probability that a minibatch is mixed; with one :math:`\lambda`
            per pair or sample, that the pair or sample is. The default is 1.
        cutmix_alpha (float): Like ``alpha``, for CutMix (arXiv 1905.04899): a box with
            the share :math:`1 - \lambda` of a map is taken from the partner, and
            :math:`\lambda` is set to the share that is left after clipping and
            rounding. The mixing points must be maps, of shape :math:`(N, C, H, W)` or
            with one or three axes in place of :math:`H, W`. The default is 0: no
            CutMix. With ``alpha=0``, CutMix replaces mixup altogether.
        switch_prob (float): Probability that CutMix, FMix or ResizeMix replaces mixup,
            for a minibatch, pair or sample, if ``alpha`` is above 0. If several of the
            three are on, each is equally probable. The default is 0.5.
        seed (int): Seed of the generator (PCG64); ``None``, the default, for an
            unpredictable one.
        fixed_lam (float): A constant :math:`\lambda` in :math:`[0, 1]`. The alphas and
            bounds then only select the methods, and layers and partners stay those that
            the seed gives without it. The default is ``None``: :math:`\lambda` is
            drawn.
        cutmix_minmax (sequence of float): CutMix with boxes inside the map, whose sides
            are drawn uniformly between these two shares of the axis, in place of
            ``cutmix_alpha``. The default is ``None``: no such boxes.
        fmix_alpha (float): Like ``cutmix_alpha``, for FMix: the elements where noise of
            low frequencies (decay power 3) is largest are taken from the partner. The
            default is 0: no FMix.
        resizemix_minmax (sequence of float): ResizeMix: the whole map of the partner is
            resized, to the nearest element, and pasted into a random box inside the
            map. The sides of the box are the share :math:`\tau` of the axes, which is
            drawn uniformly between these two numbers; in maps with one or three axes,
            the volume of the box is the share :math:`\tau^2`. The paper uses
            (0.1, 0.8). The default is ``None``: no ResizeMix.
        common_draw (bool): Whether all ranks of a multi-node optimizer mix at the same
            layer with the same :math:`\lambda`, but each with its own partners (and its
            own :math:`\lambda` per pair or sample). Ranks with minibatches of :math:`b`
            samples then do the same as one process that mixes all samples within
            groups of :math:`b`. The default is ``False``: each rank draws its own.

    Raises:
        TypeError: If a mixing point is neither an integer nor a string, a number is
            none, or ``fold`` or ``common_draw`` is no bool.
        ValueError: If an alpha is negative, NaN or infinite, a probability, bound or
            ``fixed_lam`` is outside :math:`[0, 1]`, bounds are not two numbers in
            order, ``layer_mix`` is empty, ``per`` is unknown, or ``cutmix_minmax``
            comes with ``fold``, ``fixed_lam`` or ``cutmix_alpha``.
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
        cutmix_minmax: Sequence[float] | None = None,
        fmix_alpha: float = 0.0,
        resizemix_minmax: Sequence[float] | None = None,
        common_draw: bool = False,
    ) -> None:
        if per not in ("batch", "pair", "sample"):
            raise ValueError(f"per must be 'batch', 'pair' or 'sample', not {per!r}")
        for name, value in (
            *(("alpha", alpha), ("prob", prob), ("cutmix_alpha", cutmix_alpha)),
            *(("switch_prob", switch_prob), ("fmix_alpha", fmix_alpha)),
        ):
            _check_float(name, value)
        if fixed_lam is not None:
            _check_float("fixed_lam", fixed_lam)
        check_bool("fold", fold)
        check_bool("common_draw", common_draw)
        self.alpha = float(alpha)
        self.layer_mix = as_points(layer_mix)
        self.per = per
        self.fold = fold
        self.prob = float(prob)
        self.cutmix_alpha = float(cutmix_alpha)
        self.switch_prob = float(switch_prob)
        self.fixed_lam = None if fixed_lam is None else float(fixed_lam)
        self.cutmix_minmax = _bounds("cutmix_minmax", cutmix_minmax)
        self.fmix_alpha = float(fmix_alpha)
        self.resizemix_minmax = _bounds("resizemix_minmax", resizemix_minmax)
        self.common_draw = common_draw
        self._rank, self._n_rank = 0, 1
        self._check()
        check_seed(seed)
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def _check(self) -> None:
        # Each time, since extensions may shift them.
        for name in ("alpha", "cutmix_alpha", "fmix_alpha"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"{name} must be a finite number >= 0 (0: none of it), not {value}"
                )
        for name in ("prob", "switch_prob", "fixed_lam"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {value}")
        for name in ("cutmix_minmax", "resizemix_minmax"):
            bounds = getattr(self, name)
            if bounds is not None and not 0 <= bounds[0] <= bounds[1] <= 1:
                raise ValueError(
                    f"{name} must be two numbers in [0, 1], the smaller one first, not "
                    f"{bounds}"
                )
        if self.cutmix_minmax and (self.fold or self.fixed_lam is not None):
            other = "fold" if self.fold else "fixed_lam"
            raise ValueError(
                "the boxes of cutmix_minmax have sides of their own, which no lambda "
                f"tells: leave out {other}, or use cutmix_alpha"
            )
        if self.cutmix_minmax and self.cutmix_alpha:
            raise ValueError(
                "cutmix_minmax is in place of cutmix_alpha: leave out one of them"
            )

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
        return self.prob > 0 and (self.alpha > 0 or len(self.pastes) > 0)

    @property
    def pastes(self) -> tuple[str, ...]:
        """The methods among ``cutmix``, ``fmix`` and ``resizemix`` that are on."""
        is_on = (
            ("cutmix", self.cutmix_alpha > 0 or self.cutmix_minmax),
            ("fmix", self.fmix_alpha > 0),
            ("resizemix", self.resizemix_minmax),
        )
        return tuple([name for name, value in is_on if value])

    def draw(
        self, batch_size: int, points: int | str | Sequence[int | str] = ()
    ) -> MixupDraw | None:
        """Draws for one minibatch.

        Args:
            batch_size (int): The number of samples :math:`N`.
            points: The mixing points of the link, or a single one, used when the policy
                was made without ``layer_mix``. If it is empty, the link is left to
                choose.

        Returns:
            MixupDraw: A layer, :math:`\\lambda` and a permutation, which are
            independent; layer and permutation are uniform. ``None`` if this minibatch
            is not to be mixed. If pairs or samples are drawn one by one, the unmixed
            ones have :math:`\\lambda = 1` and are their own partners; the others have
            partners among themselves.
        """
        if not self.mixes:
            return None
        check_whole("batch_size", batch_size, 1)
        if isinstance(points, (int, str)):
            points = (points,)
        rng, own = self._generators()
        each = rng if self.per == "batch" else own
        n = {"batch": 1, "pair": (batch_size + 1) // 2, "sample": batch_size}[self.per]
        is_mixed = None  # all of them
        if self.prob < 1:
            is_mixed = each.random(n) < self.prob
            if not is_mixed.any():
                return None
        points = self.layer_mix or points
        layer = points[int(rng.integers(len(points)))] if points else None
        method = self._methods(n, each)
        if is_mixed is not None:
            method = np.where(is_mixed, method, "none")
        methods = set(method.tolist())
        lam, sides = self._weights(method, methods, each)
        perm = own.permutation(batch_size)
        pastes = not methods <= {"none", "mixup"}
        center = each.random((n, 3)) if pastes else None
        of: Any = slice(None)  # which draw each sample has
        if self.per == "batch":
            of = 0
        elif self.per == "pair":
            perm, of = _pair_off(perm)
            if is_mixed is not None:
                perm = np.where(is_mixed[of], perm, np.arange(batch_size))
        elif is_mixed is not None and not is_mixed.all():
            # A cycle of the mixed ones, so that the others are their own partners.
            order = perm[is_mixed[perm]]
            perm = np.arange(batch_size)
            perm[order] = np.roll(order, 1)
        center, sides = (None if a is None else a[of] for a in (center, sides))
        if self.per == "batch":
            return MixupDraw(layer, float(lam[0]), perm, center, str(method[0]), sides)
        lam = lam[of].astype(np.float32)
        return MixupDraw(layer, lam, perm, center, method[of], sides)

    def _methods(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draws which method mixes."""
        pastes = self.pastes
        if not pastes:
            return np.full(n, "mixup")
        which = 0 if len(pastes) == 1 else rng.integers(len(pastes), size=n)
        method = np.broadcast_to(np.array(pastes)[which], n)
        if self.alpha > 0:
            switches = rng.random(n) < self.switch_prob
            method = np.where(switches, method, "mixup")
        return method

    def _weights(
        self, method: np.ndarray, methods: set[str], rng: np.random.Generator
    ) -> tuple:
        """Draws lambda, and the sides of CutMix's boxes if they have bounds."""
        n = len(method)
        alphas = {
            "mixup": self.alpha,
            "cutmix": self.cutmix_alpha,
            "fmix": self.fmix_alpha,
        }
        # At most 1e300, where lambda is 1/2, since NumPy's sum of two overflows.
        alpha: Any = [min(alphas.get(k) or 1.0, 1e300) for k in method.tolist()]
        if len(methods) == 1:
            alpha = alpha[0]  # which is faster
        lam = rng.beta(alpha, alpha, n)
        if "resizemix" in methods and self.resizemix_minmax:
            side = rng.uniform(*self.resizemix_minmax, n)
            lam = np.where(method == "resizemix", 1 - side**2, lam)
        sides = None
        if "cutmix" in methods and self.cutmix_minmax:
            sides = rng.uniform(*self.cutmix_minmax, (n, 3))
            lam = np.where(method == "cutmix", 1 - sides[:, 0] * sides[:, 1], lam)
        if self.fixed_lam is not None:
            lam = np.full(n, self.fixed_lam)
        if self.fold:
            lam = np.maximum(lam, 1 - lam)
        if "none" in methods:
            lam = np.where(method == "none", 1.0, lam)
        return lam, sides

    def _generators(self) -> tuple[np.random.Generator, np.random.Generator]:
        """Returns what to draw from for the whole minibatch, and for each sample."""
        if self._n_rank == 1:
            return self._rng, self._rng
        step = int(self._rng.integers(1 << 63))
        common, own = (
            np.random.Generator(np.random.PCG64([step, stream]))
            for stream in (0, 1 + self._rank)
        )
        return common if self.common_draw else own, own

    def use_communicator(self, communicator: Any) -> None:
        """Draws for this rank from now on.

        The classifier calls it before its first step under a multi-node optimizer.

        Args:
            communicator (~chainermn.CommunicatorBase): One of ChainerMN's. All its
                ranks must call this at the same time, and take the generator of rank 0.
        """
        self._rank, self._n_rank = communicator.rank, communicator.size
        if self._n_rank > 1:
            state = self._rng.bit_generator.state if self._rank == 0 else None
            self._rng.bit_generator.state = communicator.bcast_obj(state)

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
