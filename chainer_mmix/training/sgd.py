from __future__ import annotations

import chainer
from chainer.backends import cuda
from chainer.optimizer import (
    GradientMethod,
    Hyperparameter,
    HyperparameterProxy,
    UpdateRule,
)

from chainer_mmix.checks import check_number
from chainer_revive import registry
from chainer_revive.cpu import compiled
from chainer_revive.cpu.adapters.optimizers import KINDS, Kind, covers
from chainer_revive.cuda import optimizers as one_kernel


class SGDRule(UpdateRule):
    """Updates one parameter, see :class:`SGD`.

    Args:
        parent_hyperparam (~chainer.optimizer.Hyperparameter): Has ``lr``, ``momentum``,
            ``weight_decay`` and ``nesterov``.
    """

    is_elementwise = True

    def __init__(self, parent_hyperparam: Hyperparameter) -> None:
        super().__init__(parent_hyperparam)

    def init_state(self, param: chainer.Variable) -> None:
        with chainer.using_device(param.device):
            self.state["velocity"] = param.device.xp.zeros_like(param.data)

    def update_core_cpu(self, param: chainer.Variable) -> None:
        p, grad = param.data, param.grad
        if grad is None:
            return
        v, loops = self.state["velocity"], compiled.loops(p.dtype)
        if loops is not None and covers((p, grad, v)):
            loops.optimizers.sgd([(p, grad, v)], [_rates(self)])
        else:
            self._update_plainly(param)

    def _update_plainly(self, param: chainer.Variable) -> None:
        p, grad, v, hp = param.data, param.grad, self.state["velocity"], self.hyperparam
        d = grad + hp.weight_decay * p if hp.weight_decay else grad
        v *= hp.momentum
        v += d
        p -= hp.lr * (d + hp.momentum * v if hp.nesterov else v)

    def update_core_gpu(self, param: chainer.Variable) -> None:
        if param.grad is None:
            return
        registry.decide()  # if it waits for the first call on a GPU, this may be it
        if registry.is_left_off("sgd"):
            self._update_plainly(param)
            return
        hp = self.hyperparam
        sgd_kernel()(
            *(param.grad, hp.lr, hp.momentum, hp.weight_decay, hp.nesterov),
            *(param.data, self.state["velocity"]),
        )


class SGD(GradientMethod):
    """Stochastic gradient descent with momentum, with the steps of PyTorch.

    With gradient g, parameter p and velocity v, which is initially 0, a step is

    .. math::

        d &= g + \\mathrm{weight\\_decay} \\cdot p \\\\
        v &\\leftarrow \\mathrm{momentum} \\cdot v + d \\\\
        p &\\leftarrow p - \\mathrm{lr} \\cdot
            (d + \\mathrm{momentum} \\cdot v \\text{ if nesterov, else } v)

    It differs from Chainer's optimizers as follows. The velocity does not contain the
    learning rate, so a drop takes effect in the next step; the velocity of
    :class:`chainer.optimizers.MomentumSGD` keeps its old pace for about
    1 / (1 - momentum) steps. :class:`chainer.optimizers.NesterovAG` is another method:
    with a momentum of 0.9, its first step is 2.71 lr g, where this one's is 1.9 lr g;
    on a parabola, it is stable for lr times curvature up to 0.86, this one up to 1.35.
    Weight decay is applied after hooks such as
    :class:`~chainer.optimizer_hooks.GradientClipping`, so it is not clipped.

    A parameter that the loss does not depend on has a gradient of 0, as always in
    Chainer, and therefore decays; PyTorch leaves it alone.

    A parameter may have its own hyperparameters, such as
    ``link.fc.b.update_rule.hyperparam.weight_decay = 0``.

    Source: ``torch.optim.SGD``, which the code of arXiv 1806.05236 uses.

    Args:
        lr (float): Learning rate. The default is 0.1.
        momentum (float): The default is 0.9.
        weight_decay (float): Rate of the L2 penalty. The default is 0.
        nesterov (bool): Whether to step by Nesterov's momentum. The default is
            ``False``.

    Raises:
        ValueError: If ``lr``, ``momentum`` or ``weight_decay`` is not a finite number
            >= 0, or ``nesterov`` is given with a momentum of 0.
    """

    def __init__(
        self,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        values = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        for name, value in values.items():
            check_number(name, value)
        if nesterov and not momentum:
            raise ValueError("nesterov=True needs a momentum above 0, such as 0.9")
        super().__init__()
        self.hyperparam.lr = lr
        self.hyperparam.momentum = momentum
        self.hyperparam.weight_decay = weight_decay
        self.hyperparam.nesterov = nesterov

    lr = HyperparameterProxy("lr")
    momentum = HyperparameterProxy("momentum")
    weight_decay = HyperparameterProxy("weight_decay")
    nesterov = HyperparameterProxy("nesterov")

    def create_update_rule(self) -> SGDRule:
        return SGDRule(self.hyperparam)


def sgd_kernel():
    """Returns the ElementwiseKernel of a step."""
    return cuda.elementwise(
        "T grad, T lr, T momentum, T weight_decay, bool nesterov",
        "T param, T v",
        """
        T d = grad + weight_decay * param;
        v = momentum * v + d;
        param -= lr * (nesterov ? T(d + momentum * v) : v);
        """,
        "mmix_sgd",
    )


def _rates(rule: SGDRule) -> tuple[float, ...]:
    hp = rule.hyperparam
    return hp.lr, hp.momentum, hp.weight_decay, float(hp.nesterov)


KINDS[SGDRule] = Kind("sgd", ("velocity",), lambda rule, dtype: _rates(rule))

one_kernel.add_rule(
    SGDRule,
    one_kernel.Rule(("velocity",), _rates),
    """
        float lr = t.rates[0], momentum = t.rates[1], weight_decay = t.rates[2];
        float d = grad + weight_decay * param;
        float v = momentum * t.s0[i] + d;
        param -= lr * (t.rates[3] ? d + momentum * v : v);
        t.s0[i] = v;""",
)
