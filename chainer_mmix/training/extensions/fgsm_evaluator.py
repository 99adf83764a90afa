from __future__ import annotations

import functools
import numbers
from collections.abc import Sequence
from typing import Any

import chainer

from chainer_mmix.analysis.fgsm import fgsm_accuracy
from chainer_mmix.checks import check_number
from chainer_mmix.training.extensions.predictor_evaluator import PredictorEvaluator


class FgsmEvaluator(PredictorEvaluator):
    r"""Reports the accuracy under attack by the fast gradient sign method.

    For each :math:`\epsilon` it reports ``fgsm_accuracy/<eps>``. The attacker knows the
    network, its loss function and the label, and takes one step:
    :math:`x + \epsilon\,\mathrm{sign}(\nabla_x L)`. The predictor takes one input, of
    floats, and keeps no state. Labels that the classifier's accuracy or loss ignores do
    not count.

    It measures how flat the loss is around the data, not whether a network is safe:
    attacks of many steps are stronger.

    Args:
        iterator, target, args, options: The arguments of
            :class:`~chainer_mmix.training.extensions.PredictorEvaluator` but
            ``measure``.
        eps (sequence of float): All :math:`\epsilon`, in the units of the inputs. The
            default suits images in [0, 1].
        clip (tuple of float): The range of the inputs, such as ``(0, 1)``, which the
            attack may not leave; an input beyond it is an error. ``None``, the default,
            for no such range.

    Raises:
        TypeError: If ``eps`` is one number.
        ValueError: If an ``eps`` is no finite number or negative, or ``clip`` no range.
    """

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        *args,
        eps: Sequence[float] = (0.01, 0.03, 0.1),
        clip: tuple[float, float] | None = None,
        **options,
    ) -> None:
        if isinstance(eps, numbers.Real):
            raise TypeError(f"eps must be a list: [{eps!r}]")
        for value in eps:
            check_number("each eps", value)
        if clip is not None and not _is_range(clip):
            raise ValueError(
                f"clip must be None or a lower and a higher number, as (0, 1), not "
                f"{clip!r}"
            )
        measure = functools.partial(fgsm_accuracy, eps=tuple(eps), clip=clip)
        super().__init__(iterator, target, measure, *args, **options)


def _is_range(clip: Any) -> bool:
    try:
        low, high = clip
    except (TypeError, ValueError):
        return False
    return all(isinstance(end, numbers.Real) for end in (low, high)) and low < high
