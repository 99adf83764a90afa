from __future__ import annotations

import chainer
from chainer import optimizers
from chainer.optimizer_hooks import WeightDecay

# Name: the default learning rate.
OPTIMIZERS = {"adam": 1e-3, "adamw": 1e-3, "momentum_sgd": 0.1, "nesterov": 0.1}


def make_optimizer(
    name: str, model: chainer.Link, lr: float, weight_decay: float = 0.0
) -> chainer.GradientMethod:
    """Makes an optimizer by name and sets it up.

    Args:
        name (str): ``"adam"``, ``"adamw"``, ``"momentum_sgd"`` or ``"nesterov"``; the
            last two have momentum 0.9.
        model (~chainer.Link): What to optimize.
        lr (float): Learning rate.
        weight_decay (float): For ``"adamw"`` decoupled from the gradient: each step
            takes ``lr * weight_decay`` of a weight away (arXiv 1711.05101). For the
            others an L2 penalty (:class:`chainer.optimizer_hooks.WeightDecay`). The
            default is 0.

    Returns:
        chainer.GradientMethod: The optimizer of ``model``.
    """
    if name == "adamw":
        # Chainer's rate is not scaled by alpha.
        optimizer = optimizers.AdamW(alpha=lr, weight_decay_rate=lr * weight_decay)
        return optimizer.setup(model)
    make = {
        "adam": optimizers.Adam,
        "momentum_sgd": optimizers.MomentumSGD,
        "nesterov": optimizers.NesterovAG,
    }[name]
    optimizer = make(lr).setup(model)
    if weight_decay:
        optimizer.add_hook(WeightDecay(weight_decay))
    return optimizer
