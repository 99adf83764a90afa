from __future__ import annotations

from typing import Any

import chainer
from chainer.training.extensions import LinearShift

from chainer_mmix.mixing import MixupPolicy
from chainer_mmix.training.trainer_parts import classifier_of

_ATTRIBUTES = (
    *("alpha", "prob", "cutmix_alpha", "fmix_alpha", "switch_prob", "fixed_lam"),
)


class MixupShift(LinearShift):
    """Shifts a number of the policy linearly, such as its ``alpha``.

    It is :class:`~chainer.training.extensions.LinearShift` for the policy of a
    :class:`~chainer_mmix.ManifoldMixupClassifier`. Chainer's extension, without
    ``optimizer=policy``, sets the ``alpha`` of the optimizer: Adam's learning rate.

    Args:
        attr (str): ``"alpha"``, ``"prob"``, ``"cutmix_alpha"``, ``"fmix_alpha"``,
            ``"switch_prob"`` or ``"fixed_lam"``.
        value_range (tuple of float): The first and the last value.
        time_range (tuple of int): The first and the last call of the shift. Calls are
            iterations, unless :meth:`~chainer.training.Trainer.extend` is given
            another trigger.
        policy (MixupPolicy): The policy. The default is that of the Trainer's
            classifier.

    Raises:
        ValueError: If there is no such attribute, a value is out of its range, the time
            goes backwards, or, when the run begins, there is no classifier, there are
            several, or an alpha is to shift whose policy has a ``fixed_lam``.
    """

    _optimizer: Any  # what it shifts, as Chainer calls it

    def __init__(
        self,
        attr: str,
        value_range: tuple[float, float],
        time_range: tuple[int, int],
        policy: MixupPolicy | None = None,
    ) -> None:
        if attr not in _ATTRIBUTES:
            names = ", ".join(_ATTRIBUTES)
            raise ValueError(f"attr must be one of {names}, not {attr!r}")
        for name, values in (("value_range", value_range), ("time_range", time_range)):
            if not (isinstance(values, (tuple, list)) and len(values) == 2):
                raise ValueError(
                    f"{name} must be two numbers, (first, last), not {values!r}"
                )
        for value in value_range:
            given: Any = {attr: value}
            MixupPolicy(**given)  # checks it
        if not time_range[0] < time_range[1]:
            raise ValueError(f"time_range must be (first, later), not {time_range}")
        super().__init__(attr, value_range, time_range, policy)

    def _get_optimizer(self, trainer: chainer.training.Trainer) -> MixupPolicy:
        if self._optimizer is None:
            classifier = classifier_of(trainer, type(self).__name__)
            if classifier is None:
                raise ValueError(
                    "MixupShift finds no ManifoldMixupClassifier in the updater: give "
                    "the policy, MixupShift(..., policy=model.policy)"
                )
            self._optimizer = classifier.policy
        return self._optimizer

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        is_lam_fixed = self._get_optimizer(trainer).fixed_lam is not None
        if is_lam_fixed and self._attr.endswith("alpha") and min(self._value_range) > 0:
            raise ValueError(
                f"a shift of {self._attr} changes nothing with fixed_lam: leave out one"
            )
        super().initialize(trainer)
