"""Pasting places of the partner over a sample: CutMix, FMix and ResizeMix."""

from __future__ import annotations

import chainer
import chainer.functions as F
import numpy as np
from chainer import backend

from chainer_mmix.mixing.draw import MixupDraw
from chainer_mmix.mixing.functions import mix
from chainer_mmix.mixing.regions import NAMES, Regions
from chainer_mmix.mixing.weights import Weights
from chainer_revive.cpu import steps


class Resize(chainer.FunctionNode):
    """Takes each element of a map from another place of it, or zero from none.

    A place is taken once at most, so that the gradient is the same function with the
    inverse places.

    Args:
        places (array): Integers of shape (1 or N, d), numbers of places in the maps
            with all axes as one of length d; -1 for none.
    """

    def __init__(self, places: np.ndarray) -> None:
        super().__init__()
        self.places = places

    def forward(self, inputs):
        (x,) = inputs
        device = backend.get_device_from_array(x)
        places = device.send(self.places)
        y = x.reshape(*x.shape[:2], -1)
        if len(places) == 1:
            y = y.take(places[0].clip(0), axis=2)
        else:
            y = device.xp.take_along_axis(y, places.clip(0)[:, None], axis=2)
        y[device.xp.broadcast_to(places[:, None] < 0, y.shape)] = 0
        return (y.reshape(x.shape),)

    def backward(self, indexes, grad_outputs):
        inverse = np.full_like(self.places, -1)
        row, place = np.nonzero(self.places >= 0)
        inverse[row, self.places[row, place]] = place
        return Resize(inverse).apply(grad_outputs)


def cutmix(x, lam, perm, center) -> tuple[chainer.Variable, float | np.ndarray]:
    r"""Pastes a box of each sample's partner over the sample.

    A box covers the share :math:`1 - \lambda` of the map and has its proportions. Boxes
    that reach over the border are clipped.

    Source: arXiv 1905.04899 and its published code, there for images.

    Args:
        x (~chainer.Variable or array): Float array of shape :math:`(N, C, d_1, ...)`
            with one to three axes after the second, of 3 elements or more.
        lam (float or array): See :func:`~chainer_mmix.mix`.
        perm (array): See :func:`~chainer_mmix.mix`.
        center (array): The centres of the boxes, as shares in :math:`[0, 1)` of
            :math:`d_1, ...`: an array of shape :math:`(3,)`, or :math:`(N, 3)` with a
            box for each sample.

    Returns:
        tuple: The samples, of the shape and dtype of ``x``, and the new
        :math:`\lambda`: the share of each map that is left, a float or a float32 array
        of shape :math:`(N,)`.

    Raises:
        ValueError: If ``x`` is not a map, or for the reasons of
            :func:`~chainer_mmix.mix`.
    """
    draw = MixupDraw(None, lam, perm, center)
    regions = _regions(x, draw)
    return _paste(x, draw, regions), regions.left(lam)


def paste(parts: tuple, target, draw: MixupDraw) -> tuple:
    """Mixes a map by a draw that pastes, for some of its samples at least.

    Args:
        parts (tuple): The map, the only part of the state.
        target: Array of shape (N, ...).
        draw (MixupDraw): The draw.

    Returns:
        tuple: The mixed map, both targets, and the weights of the first.

    Raises:
        ValueError: If there are several parts, or targets or map do not fit.
    """
    name = NAMES[next(m for m in np.atleast_1d(draw.method) if m in NAMES)]
    if len(parts) > 1:
        raise ValueError(
            f"{name} takes places from one map, but the state has {len(parts)} parts, "
            f"of shapes {[part.shape for part in parts]}: mix at other points, or by "
            "mixup"
        )
    (x,) = parts
    regions = _regions(x, draw, name)
    is_dense = target.ndim > 2
    if is_dense and not _is_of_places(target.shape, x.shape):
        raise ValueError(
            f"{name} takes places from a map of shape {x.shape}, but targets of shape "
            f"{target.shape} are neither of each sample, with one or two axes, nor of "
            "each place in a map with the same proportions: use mixup"
        )
    mixed, left = _paste(x, draw, regions), regions.left(draw.lam)
    if not is_dense:
        return mixed, target, of_partners(target, draw.perm), left
    target_a, target_b = _paste_places(target, draw.perm, regions)
    return mixed, target_a, target_b, left


def of_partners(target, perm):
    """Returns the targets of the partners."""
    device = backend.get_device_from_array(chainer.as_array(target))
    perm = device.send(perm if hasattr(perm, "dtype") else np.array(perm))
    return steps.take(target, perm) if type(target) is np.ndarray else target[perm]


def _regions(x, draw: MixupDraw, name: str = "CutMix") -> Regions:
    size = x.shape[2:]
    # On smaller maps, every box would be rounded to none.
    if not 1 <= len(size) <= 3 or min(size) < 3:
        raise ValueError(
            f"{name} takes places from maps of shape (N, C, H, W), or with one or "
            f"three axes after C, each 3 or longer, but x has shape {x.shape}: mix at "
            "other points, or by mixup"
        )
    return Regions(draw, size)


def _paste(x, draw: MixupDraw, regions: Regions) -> chainer.Variable:
    base = chainer.as_variable(x)
    is_mixup = regions.methods == "mixup"
    if is_mixup.any():
        lam = np.where(is_mixup, Weights.of(draw.lam, len(x)).first, 1)
        base = mix(x, lam, draw.perm)
    partner = mix(x, 0.0, draw.perm)
    if (regions.methods == "resizemix").any():
        (partner,) = Resize(regions.places()).apply((partner,))
    device = backend.get_device_from_array(base.array)
    mask = device.xp.broadcast_to(device.send(regions.mask[:, None]), x.shape)
    return F.where(mask, partner, base)


def _is_of_places(target: tuple[int, ...], x: tuple[int, ...]) -> bool:
    """Tells whether targets (N, H, W) or (N, C, H, W) may lie over maps (N, C, H, W).

    A map may be smaller than the targets, or larger, by one factor along all axes, but
    for what strides and borders have rounded.
    """
    size = x[2:]
    if len(size) < 2 or len(target) not in (len(x) - 1, len(x)):
        return False
    places = target[-len(size) :]
    least = max(t / (n + 1) for t, n in zip(places, size, strict=True))
    most = min(t / (n - 1) for t, n in zip(places, size, strict=True))
    return least <= most


def _paste_places(target, perm, regions: Regions) -> tuple:
    """Pastes the targets of each place as the places of the map, scaled.

    Returns:
        tuple: Both targets, one array if no sample is mixed otherwise.
    """
    own = chainer.as_array(target)
    device = backend.get_device_from_array(own)
    n_axis = len(regions.size)
    size = own.shape[own.ndim - n_axis :]
    other = pasted = own[device.send(np.array(perm))]
    mask = regions.mask
    ones = [1] * (own.ndim - n_axis - 1)
    # A place belongs to the element of the mixed map that its middle lies in.
    for axis, n in enumerate(size):
        at = (2 * np.arange(n) + 1) * mask.shape[axis + 1] // (2 * n)
        mask = mask.take(at, axis + 1)
        if (regions.methods == "resizemix").any():
            source = regions.sources(axis, n)
            shape = *ones, *(n if k == axis else 1 for k in range(n_axis))
            source = device.send(source.reshape(-1, *shape))
            along = own.ndim - n_axis + axis
            pasted = device.xp.take_along_axis(pasted, source, along)
    mask = device.send(mask.reshape(len(mask), *ones, *size))
    a = device.xp.where(mask, pasted, own)
    is_mixup = regions.methods == "mixup"
    if not is_mixup.any():
        return a, a
    is_mixup = device.send(is_mixup.reshape(-1, *[1] * (own.ndim - 1)))
    return a, device.xp.where(is_mixup, other, a)
