from __future__ import annotations

import dataclasses
import weakref

import chainer
import chainer.functions as F
import numpy as np

from chainer_mmix.mixing import kernels
from chainer_mmix.mixing.draw import Mixture, current_mixture
from chainer_mmix.mixing.weights import Weights
from chainer_revive import registry
from chainer_revive.cpu.function_node import gradients, unwatched

# Rows are mixed in chunks of this size, so that the intermediate values stay in cache.
_CHUNK_BYTES = 1 << 17


class Mix(chainer.FunctionNode):
    """``y[n] = a[n] * x[n] + b[n] * x[perm[n]]``, computed in float32 or better.

    The gradient is the same function with the inverse permutation, so that it needs
    no scatter-add and is differentiable as often as one likes.

    Args:
        weights (Weights): a and b.
        perm: A permutation of the integers below N, checked by the weights.
    """

    def __init__(self, weights: Weights, perm) -> None:
        super().__init__()
        self.weights = weights
        self.perm = perm

    def forward_cpu(self, inputs):
        (x,) = inputs
        y = kernels.mix_on_cpu(x, *self.weights.pair, self.perm)
        if y is not NotImplemented:
            return (y,)
        dtype = np.promote_types(x.dtype, np.float32)
        column = (-1,) + (1,) * (x.ndim - 1)
        a, b = (np.full(len(x), w, dtype).reshape(column) for w in self.weights.pair)
        y = np.empty_like(x)
        rows = max(1, _CHUNK_BYTES * len(x) // max(1, x.nbytes))
        for start in range(0, len(x), rows):
            chunk = slice(start, start + rows)
            mixed = x[self.perm[chunk]] * b[chunk]
            mixed += x[chunk] * a[chunk]
            y[chunk] = mixed
        return (y,)

    def forward_gpu(self, inputs):
        (x,) = inputs
        a, b, perm = self.weights.for_kernel(x.dtype, self.perm)
        mix = kernels.mix_plainly if registry.is_left_off("mix") else kernels.mix
        return (mix(x, a, b, perm),)

    def backward(self, indexes, grad_outputs):
        return _gradient(Mix(*self.weights.inverse(self.perm)), grad_outputs)


def _gradient(function: Mix, grad_outputs: tuple) -> tuple:
    if not unwatched():
        return function.apply(grad_outputs)
    return gradients(function.forward((grad_outputs[0].array,)))


def check_array(x, name: str) -> None:
    """Raises a TypeError unless something is an array or a Variable."""
    if not hasattr(x, "dtype"):
        raise TypeError(f"{name} must be an array, not {type(x).__name__}")


def mix(x, lam, perm) -> chainer.Variable:
    r"""Mixes each sample with a partner from the same batch.

    .. math:: y_n = \lambda_n x_n + (1 - \lambda_n) x_{\pi(n)}

    The gradient flows to both partners. Half precision is mixed in float32 and
    rounded once.

    Source: equation 1 of arXiv 1806.05236.

    Args:
        x (~chainer.Variable or array): Float array of shape :math:`(N, ...)`, NumPy
            or CuPy.
        lam (float or array): Weight of the first partner in :math:`[0, 1]`: a number
            for the whole batch or an array of shape :math:`(N,)`, one a sample.
        perm (array): Integers of shape :math:`(N,)`, a permutation of
            :math:`0, ..., N - 1`.

    Returns:
        ~chainer.Variable: The mixed samples, of the shape and dtype of ``x``.

    Raises:
        TypeError: If ``x`` is not of a float dtype.
        ValueError: If ``lam`` is outside :math:`[0, 1]`, or if ``lam`` or ``perm``
            does not fit ``x``.
    """
    check_array(x, "x")
    n = len(x)
    if x.dtype.kind != "f":
        raise TypeError(
            f"x has dtype {x.dtype}, which cannot be mixed: convert it to float32, or "
            "mix a hidden state, such as the output of an embedding"
        )
    weights = Weights.of(lam, n)
    return Mix(weights, weights.check_perm(perm, x.shape)).apply((x,))[0]


def cutmix(x, lam, perm, center) -> tuple[chainer.Variable, float | np.ndarray]:
    r"""Pastes a box of each sample's partner over the sample.

    A box has the share :math:`1 - \lambda` of the map and the form of the map. Where
    it reaches over the border it is clipped.

    Source: arXiv 1905.04899 and its published code, there for images.

    Args:
        x (~chainer.Variable or array): Float array of shape :math:`(N, C, d_1, ...)`
            with one to three axes after the second, of 3 elements or more.
        lam (float or array): See :func:`~chainer_mmix.mix`.
        perm (array): See :func:`~chainer_mmix.mix`.
        center (array): Where the boxes are centred, in shares in :math:`[0, 1)` of
            :math:`d_1, ...`: an array of shape :math:`(3,)`, or :math:`(N, 3)` for a
            box a sample.

    Returns:
        tuple: The samples, of the shape and dtype of ``x``, and what :math:`\lambda`
        has become: the share of each map that is left, a float or a float32 array
        of shape :math:`(N,)`.

    Raises:
        ValueError: If ``x`` is not a map, and as :func:`~chainer_mmix.mix`.
    """
    box = _boxes(x, lam, center)
    return _paste(x, perm, box), _left(box, lam)


def _boxes(x, lam, center) -> np.ndarray:
    """Returns where CutMix takes the partner, of shape (1 or N, d_1, ...)."""
    size = np.array(x.shape[2:])
    # On smaller maps, every box would be rounded to none.
    if not 1 <= len(size) <= 3 or min(size) < 3:
        raise ValueError(
            "CutMix takes boxes from maps of shape (N, C, H, W), or with one or three "
            f"axes after C, each 3 or longer, but x has shape {x.shape}: mix at other "
            "points, or by mixup"
        )
    rest = np.reshape(Weights.of(lam, len(x)).second, (-1, 1))
    half = (size * rest ** (1 / len(size)) / 2).astype(int)
    middle = (size * np.reshape(center, (-1, 3))[:, : len(size)]).astype(int)
    box = np.ones((len(half), *size), bool)
    for axis, n in enumerate(size):
        at = np.arange(n)
        low, high = ((middle + h)[:, axis, None] for h in (-half, half))
        inside = (low <= at) & (at < high)
        box &= inside.reshape(-1, *(n if k == axis else 1 for k in range(len(size))))
    return box


def _paste(x, perm, box: np.ndarray) -> chainer.Variable:
    partner = mix(x, 0.0, perm)
    device = chainer.backend.get_device_from_array(chainer.as_array(x))
    box = device.send(np.broadcast_to(box[:, None], x.shape))
    return F.where(box, partner, chainer.as_variable(x))


def _left(box: np.ndarray, lam) -> float | np.ndarray:
    left = 1 - box.reshape(len(box), -1).mean(axis=1)
    return left.astype(np.float32) if np.ndim(lam) else float(left[0])


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


def _paste_places(target, perm, box: np.ndarray):
    """Pastes the targets of each place, from the box scaled to their map."""
    target = chainer.as_array(target)
    n_axis = box.ndim - 1
    size = target.shape[target.ndim - n_axis :]
    # A place belongs to the element of the mixed map that its middle lies in.
    for axis, n in enumerate(size, 1):
        at = (2 * np.arange(n) + 1) * box.shape[axis] // (2 * n)
        box = box.take(at, axis)
    device = chainer.backend.get_device_from_array(target)
    box = box.reshape(len(box), *[1] * (target.ndim - n_axis - 1), *size)
    partner = target[device.send(np.array(perm))]
    return device.xp.where(device.send(box), partner, target)


def mixup_data(x, target, lam, perm=None):
    r"""Mixes a batch and tells which two targets each mixed sample has.

    This is the call that a link makes at the mixing point, and there only. Within
    :class:`~chainer_mmix.ManifoldMixupClassifier` the partners come from its policy,
    which may ask for CutMix in place of mixup; elsewhere they are drawn from
    :mod:`numpy.random`.

    Source: ``mixup_process`` of the paper's published code.

    Args:
        x (~chainer.Variable or array): Float array of shape :math:`(N, ...)`: the
            input or a hidden state. One of several parts is a tuple or a list of
            them, which are mixed alike.
        target (~chainer.Variable or array): Array of shape :math:`(N, ...)`.
        lam (float or array): See :func:`~chainer_mmix.mix`.
        perm (array): See :func:`~chainer_mmix.mix`; ``None`` to have it drawn.

    Returns:
        tuple: ``(mixed, target_a, target_b)``: the mixed samples, their targets, and
        those of their partners, ``target[perm]``. After CutMix, targets of each place,
        such as label maps, are cut as the samples are and have one label a place: both
        are then that one array. The samples are a Variable if ``x``
        is one, an array if it is an array, as the input is in evaluation too, and a
        tuple if ``x`` has several parts: arrays if all parts are, else Variables.

    Raises:
        RuntimeError: If it is called within :func:`chainer.functions.forget`, which
            would draw other partners when it computes again, or within
            :func:`chainer.static_graph`, which would replay those of the first step.
        TypeError: If ``x`` is not of a float dtype, or ``target`` is ``None``.
        ValueError: If ``x`` and ``target`` differ in length, if ``lam`` is not the
            one that the classifier gave to the link, as :func:`~chainer_mmix.mix`,
            and if CutMix is asked for where ``x`` is not a single map, or ``target``
            has more than two axes, but not the proportions of the map.
    """
    if chainer.config._will_recompute:
        raise RuntimeError(
            "mixup_data was called within chainer.functions.forget, which computes "
            "again for the gradient, with other partners: mix outside of it"
        )
    mixture = current_mixture()
    if chainer.config.schedule_func is not None:
        point = None if mixture is None else mixture.draw.layer_mix
        at = "" if point is None else f" at {point!r}"
        raise RuntimeError(
            f"mixing{at} is within chainer.static_graph, which would replay this "
            "step's lambda and partners for ever: mix before or after the static "
            "chain, or set chainer.config.use_static_graph = False"
        )
    if target is None:
        raise TypeError("mixup_data got no target: pass the one that forward was given")
    several = isinstance(x, (tuple, list))
    parts = tuple(x) if several else (x,)
    check_array(target, "target")
    for part in parts:
        check_array(part, "x")
        if len(part) != len(target):
            raise ValueError(
                f"x has {len(part)} samples (shape {part.shape}) but target has "
                f"{len(target)} (shape {target.shape})"
            )
    if perm is None:
        n = len(target)
        perm = np.random.permutation(n) if mixture is None else mixture.draw.perm
    if mixture is not None and mixture.times_mixed == 0:  # CutMix then corrects lam
        _check_passed_on(lam, mixture.draw.lam, len(target))
    is_cut = mixture is not None and mixture.draw.center is not None
    if is_cut:
        cut, target, target_b = _cut(parts, target, lam, perm, mixture)
        mixed = (cut,)
    else:
        mixed = tuple([mix(part, lam, perm) for part in parts])
    is_array = not any([isinstance(part, chainer.Variable) for part in parts])
    if is_array:
        mixed = tuple([part.array for part in mixed])
    if mixture is not None:
        mixture.times_mixed += 1
        if chainer.config.enable_backprop:
            refer = [m if is_array else m.node for m in mixed]
            mixture.mixed = tuple(map(weakref.ref, refer))
            mixture.unmixed = parts if is_array else ()
    if not is_cut:
        target_b = _of_partners(target, perm)
    return mixed if several else mixed[0], target, target_b


def _of_partners(target, perm):
    device = chainer.backend.get_device_from_array(chainer.as_array(target))
    return target[device.send(perm if hasattr(perm, "dtype") else np.array(perm))]


def _check_passed_on(lam, own, n: int) -> None:
    if lam is not own and not np.array_equal(Weights.of(lam, n).first, own):
        raise ValueError(
            f"lam is {lam}, but the link was called with lam={own}: pass that on, "
            "since the loss is weighted by it"
        )


def _cut(parts: tuple, target, lam, perm, mixture: Mixture) -> tuple:
    """Returns the cut map and both targets."""
    if len(parts) > 1:
        raise ValueError(
            f"CutMix takes a box from one map, but the state has {len(parts)} parts, "
            f"of shapes {[part.shape for part in parts]}: mix at other points, or by "
            "mixup"
        )
    (x,) = parts
    box = _boxes(x, lam, mixture.draw.center)
    if target.ndim > 2 and not _is_of_places(target.shape, x.shape):
        raise ValueError(
            f"CutMix takes a box from a map of shape {x.shape}, but targets of shape "
            f"{target.shape} are neither of each sample, with one or two axes, nor of "
            "each place in a map with the same proportions: use mixup"
        )
    mixed = _paste(x, perm, box)
    mixture.draw = dataclasses.replace(mixture.draw, lam=_left(box, lam))
    if target.ndim > 2:
        target = _paste_places(target, perm, box)
        return mixed, target, target
    return mixed, target, _of_partners(target, perm)
