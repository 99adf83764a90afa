from __future__ import annotations

from typing import Any

import chainer
import numpy as np
from chainer.training import extension


class HalfPrecision(extension.Extension):
    """Logs ``loss_scale``, and completes snapshots of training in half precision.

    Chainer saves neither the loss scale nor the copies of the parameters in float32
    that it updates. With this extension, a resumed run on a CPU equals an uninterrupted
    one bit-for-bit.

    Args:
        optimizer (chainer.GradientMethod): The optimizer.
    """

    trigger = 1, "epoch"
    priority = extension.PRIORITY_WRITER

    def __init__(self, optimizer: chainer.GradientMethod) -> None:
        self._optimizer: Any = optimizer

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        trainer.observation["loss_scale"] = self._optimizer._loss_scale

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or restores the loss scale and the copies."""
        optimizer = self._optimizer
        optimizer._loss_scale = serializer("loss_scale", optimizer._loss_scale)
        if optimizer._loss_scaling_is_dynamic:
            optimizer._loss_scaling_isnan_ever = serializer(
                "has_overflown", optimizer._loss_scaling_isnan_ever
            )
        for name, param in optimizer.target.namedparams():
            rule = param.update_rule
            if not rule._use_fp32_update or param.dtype != np.float16:
                continue
            if rule._fp32_param is None:
                array = param.array.astype(np.float32)
                rule._fp32_param = chainer.Parameter(array, name=param.name)
            master = rule._fp32_param
            master.array = serializer(f"float32{name}", master.array)
