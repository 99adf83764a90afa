from __future__ import annotations

from collections.abc import Callable

import chainer
import numpy as np
from chainer.dataset import concat_examples
from chainer.optimizer import _OptimizerHookable
from chainer.optimizer_hooks import (
    GradientClipping,
    GradientHardClipping,
    GradientLARS,
    GradientNoise,
    Lasso,
)

from chainer_mmix.checks import check_number
from chainer_mmix.training.arguments import check_set_up

# Name: Chainer's dtype of new parameters.
DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "mixed16": chainer.mixed16,
}


@chainer.dataset.converter()
def convert_examples(batch, device):
    """Concatenates examples ``(image, label)`` and sends them to a device.

    It is :func:`chainer.dataset.concat_examples`, but if ``chainer.config.dtype`` is
    float16 or mixed16, arrays of floats are rounded to float16, on the host.
    """
    if not is_half():
        return concat_examples(batch, device)

    def send(array):
        if array.dtype.kind == "f":
            array = array.astype(np.float16)
        # Without a device, a batch stays where it is, as in concat_examples.
        return array if device is None else chainer.get_device(device).send(array)

    arrays = concat_examples(batch)
    if isinstance(arrays, dict):
        return {name: send(array) for name, array in arrays.items()}
    return tuple(send(array) for array in arrays)


@chainer.dataset.converter()
def convert_bytes(batch, device):
    """Does what :func:`convert_examples` does to examples whose images are bytes.

    They are sent as bytes and become floats in [0, 1] on the device.
    """
    device = chainer.get_device("@numpy" if device is None else device)
    if isinstance(device, chainer.backend.CpuDevice):
        # Image by image, so that it is in the cache.
        images = np.empty((len(batch), *batch[0][0].shape), np.float32)
        for image, (source, _) in zip(images, batch, strict=True):
            np.divide(source, np.float32(255), dtype=np.float32, out=image)
        labels = np.array([label for _, label in batch])
    else:
        images, labels = (device.send(array) for array in concat_examples(batch))
        with chainer.using_device(device):
            images = device.xp.divide(images, np.float32(255), dtype=np.float32)
    return images.astype(np.float16) if is_half() else images, labels


# Other than WeightDecay, they do not allow for the scale of gradients.
_BLIND = GradientClipping, GradientHardClipping, GradientLARS, GradientNoise, Lasso


def is_half() -> bool:
    """Tells whether ``chainer.config.dtype`` selects half precision."""
    return chainer.get_dtype(map_mixed16=np.float16) == np.float16


def scale_loss(optimizer: chainer.GradientMethod, scale: float | None = None) -> None:
    """Prepares an optimizer for the ``chainer.config.dtype`` of its model.

    In mixed16, it updates copies of the parameters in float32. In half precision, it
    scales the loss, since small gradients would become zero. In float32 it does
    nothing.

    Args:
        optimizer (chainer.GradientMethod): Set up with a model.
        scale (float): A constant factor; ``None``, the default, for a factor that grows
            until a gradient overflows; that step is then skipped.

    Raises:
        TypeError: If it is no optimizer.
        ValueError: If it is not set up, a factor is no positive number, or is given in
            float32, or if, in half precision, the optimizer has a hook, such as one
            that clips gradients, that would take scaled gradients for the gradients.
            Such a hook cannot be added afterwards either.
    """
    check_set_up(optimizer)
    if scale is not None:
        check_number("scale", scale, exclusive=True)
    if not is_half():
        if scale is not None:
            raise ValueError(
                f"scale {scale} is for float16 and mixed16: leave it out, or train "
                'with chainer.using_config("dtype", chainer.mixed16)'
            )
        return
    hooks = _HooksOfScaled(optimizer._hookable)
    if chainer.config.dtype is chainer.mixed16:  # which equals float16
        optimizer.use_fp32_update()
    optimizer.loss_scaling(scale=scale)
    optimizer._hookable = hooks


def check_hooks(optimizer: chainer.GradientMethod) -> None:
    """Checks that no hook takes scaled gradients for the gradients.

    Raises:
        ValueError: If one does.
    """
    if optimizer._loss_scale is not None:
        for hook in optimizer._hookable._pre_update_hooks.values():
            _check_hook(hook)


def _check_hook(hook: Callable) -> None:
    if isinstance(hook, _BLIND):
        raise ValueError(
            f"{type(hook).__name__} does not know that gradients are scaled with "
            "the loss: leave out this hook, such as grad_clip, or train in float32"
        )


class _HooksOfScaled(_OptimizerHookable):
    """The hooks of an optimizer that scales the loss, to which not all may be added."""

    def __init__(self, before: _OptimizerHookable) -> None:
        super().__init__(before.optimizer)
        for timing, hooks in (
            ("pre", before._pre_update_hooks),
            ("post", before._post_update_hooks),
        ):
            for name, hook in hooks.items():
                self.add_hook(hook, name, timing)

    def add_hook(self, hook: Callable, name: str | None, timing: str) -> None:
        is_auto = timing == "auto"
        if (getattr(hook, "timing", "pre") if is_auto else timing) != "post":
            _check_hook(hook)
        super().add_hook(hook, name, timing)
