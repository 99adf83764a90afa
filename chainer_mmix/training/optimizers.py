from __future__ import annotations

import chainer
import numpy as np
from chainer import optimizers
from chainer.optimizer_hooks import GradientClipping, WeightDecay

from chainer_mmix.checks import check_number
from chainer_mmix.links.contract import check_link
from chainer_mmix.lookup import lookup
from chainer_mmix.training.sgd import SGD

# Name: the default learning rate.
OPTIMIZERS = {
    **{"adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-3},
    **{"sgd": 0.1, "momentum_sgd": 0.1, "nesterov": 0.1},
}
NO_MOMENTUM = ("adam", "adamw", "rmsprop")


def make_optimizer(
    name: str,
    model: chainer.Link,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    nesterov: bool = False,
    grad_clip: float | None = None,
) -> chainer.GradientMethod:
    """Makes an optimizer by its name and sets it up.

    Args:
        name (str): ``"adam"``, ``"adamw"``, ``"rmsprop"`` (with the constants of
            Keras), ``"sgd"`` (:class:`SGD`, PyTorch's), ``"momentum_sgd"`` or
            ``"nesterov"`` (Chainer's).
        model (~chainer.Link): What to optimize.
        lr (float): Learning rate.
        weight_decay (float): For ``"adamw"``, it is decoupled from the gradient: each
            step subtracts ``lr * weight_decay`` of a weight (arXiv 1711.05101). For the
            others, it is an L2 penalty: part of the rule of ``"sgd"``, else a
            :class:`chainer.optimizer_hooks.WeightDecay`. The default is 0.
        momentum (float): For the last three; the others have none. The default is 0.9.
        nesterov (bool): Whether ``"sgd"`` uses Nesterov's momentum. The default is
            ``False``.
        grad_clip (float): The largest L2 norm of the gradient of all parameters
            together; a larger one is scaled down to it
            (:class:`~chainer.optimizer_hooks.GradientClipping`). The default is
            ``None``: no clipping.

    Returns:
        chainer.GradientMethod: The optimizer of ``model``.

    Raises:
        TypeError: If ``model`` is not a link.
        ValueError: If there is no optimizer of that name, it has no ``momentum`` or
            ``nesterov`` to set or is not for float16, the learning rate is not above 0,
            or another number is negative or not finite.
    """
    lookup(OPTIMIZERS, name, "optimizer")
    check_link(model, "model")
    check_number("lr", lr, exclusive=True)
    check_number("weight_decay", weight_decay)
    check_number("momentum", momentum)
    if grad_clip is not None:
        check_number("grad_clip", grad_clip, exclusive=True)
    if momentum != 0.9 and name in NO_MOMENTUM:
        raise ValueError(
            f"momentum {momentum} is for 'sgd', 'momentum_sgd' and 'nesterov', not for "
            f"{name!r}: leave it out, or choose one of these"
        )
    if nesterov and name != "sgd":
        raise ValueError(
            f"nesterov=True is for 'sgd', not for {name!r}: leave it out, or choose "
            "'sgd'"
        )
    is_float16 = chainer.get_dtype(map_mixed16=np.float32) == np.float16
    if name in NO_MOMENTUM and is_float16:
        raise ValueError(
            f"{name!r} is not for float16, in which squares of gradients vanish: "
            "choose 'sgd', or chainer.mixed16 and scale_loss(optimizer)"
        )
    if name == "adamw":
        # Chainer's rate is not scaled by alpha.
        optimizer = optimizers.AdamW(alpha=lr, weight_decay_rate=lr * weight_decay)
    elif name == "sgd":
        optimizer = SGD(lr, momentum, weight_decay, nesterov)
    elif name == "adam":
        optimizer = optimizers.Adam(lr)
    elif name == "rmsprop":
        optimizer = optimizers.RMSprop(lr, alpha=0.9, eps=1e-7)
    elif name == "momentum_sgd":
        optimizer = optimizers.MomentumSGD(lr, momentum)
    else:
        optimizer = optimizers.NesterovAG(lr, momentum)
    optimizer.setup(model)
    if grad_clip is not None:
        optimizer.add_hook(GradientClipping(grad_clip))
    if weight_decay and name not in ("adamw", "sgd"):  # which have their own
        optimizer.add_hook(WeightDecay(weight_decay))
    return optimizer
