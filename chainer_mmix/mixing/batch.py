from __future__ import annotations

import dataclasses
import weakref

import chainer
import numpy as np

from chainer_mmix.mixing.draw import current_mixture
from chainer_mmix.mixing.functions import check_array, mix
from chainer_mmix.mixing.paste import of_partners, paste
from chainer_mmix.mixing.targets import RowsError
from chainer_mmix.mixing.weights import Weights


def mixup_data(x, target, lam, perm=None):
    r"""Mixes a batch, and returns it with the targets of both partners.

    A link calls it at the mixing point, and only there. In a
    :class:`~chainer_mmix.ManifoldMixupClassifier`, the partners come from its policy,
    which may choose CutMix, FMix or ResizeMix in place of mixup; elsewhere they are
    drawn from :mod:`numpy.random`.

    Source: ``mixup_process`` of the paper's published code.

    Args:
        x (~chainer.Variable or array): The input or a hidden state, a float array of
            shape :math:`(N, ...)`. A state of several parts is a tuple or list of such
            arrays, which are mixed alike.
        target (~chainer.Variable or array): Array of shape :math:`(N, ...)`.
        lam (float or array): See :func:`~chainer_mmix.mix`.
        perm (array): See :func:`~chainer_mmix.mix`. By default it is drawn.

    Returns:
        tuple: ``(mixed, target_a, target_b)``: the mixed samples, their targets, and
        the targets of their partners, ``target[perm]``. If regions of a map were
        pasted, dense targets, such as label maps, are pasted like the samples:
        ``target_a`` and ``target_b`` are then the same array, except for samples of the
        minibatch that are mixed without pasting. The mixed samples are a Variable if
        ``x`` is one, and an array if ``x`` is an array, so that the network gets its
        input as in evaluation. If ``x`` has several parts, they are a tuple, of arrays
        if all parts are arrays, else of Variables.

    Raises:
        RuntimeError: If it is called within :func:`chainer.functions.forget`, which
            would draw other partners in its second computation, or within
            :func:`chainer.static_graph`, which would replay those of the first step.
        TypeError: If ``x`` is not of a float dtype, or ``target`` is ``None``.
        ValueError: If ``x`` and ``target`` differ in length; if ``lam`` is not the
            value that the classifier passed to the link, or is invalid for
            :func:`~chainer_mmix.mix`; if regions are to be pasted, but ``x`` is not a
            single map; or if a dense ``target`` does not have its proportions.
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
            raise RowsError(
                f"x has {len(part)} samples (shape {part.shape}) but target has "
                f"{len(target)} (shape {target.shape}): give one target a sample"
            )
    if perm is None:
        n = len(target)
        perm = np.random.permutation(n) if mixture is None else mixture.draw.perm
    if mixture is not None and mixture.times_mixed == 0:  # pasting then corrects lam
        _check_passed_on(lam, mixture.draw.lam, len(target))
    if mixture is not None and mixture.draw.center is not None:
        draw = dataclasses.replace(mixture.draw, perm=perm)
        *mixed, target, target_b, left = paste(parts, target, draw)
        mixture.draw = dataclasses.replace(mixture.draw, lam=left)
    else:
        mixed = [mix(part, lam, perm) for part in parts]
        target_b = of_partners(target, perm)
    is_array = not any([isinstance(part, chainer.Variable) for part in parts])
    mixed = tuple([part.array if is_array else part for part in mixed])
    if mixture is not None:
        mixture.times_mixed += 1
        mixture.targets = target, target_b
        if chainer.config.enable_backprop:
            refer = [m if is_array else m.node for m in mixed]
            mixture.mixed = tuple(map(weakref.ref, refer))
            mixture.unmixed = parts if is_array else ()
    return mixed if several else mixed[0], target, target_b


def _check_passed_on(lam, own, n: int) -> None:
    if lam is not own and not np.array_equal(Weights.of(lam, n).first, own):
        raise ValueError(
            f"lam is {lam}, but the link was called with lam={own}: pass that on, "
            "since the loss is weighted by it"
        )
