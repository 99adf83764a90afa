"""Puts the fast functions into Chainer's classes."""

from __future__ import annotations

import os
from collections.abc import Callable

from chainer import FunctionNode, backend, variable
from chainer.functions.activation.relu import ReLU, ReLUGrad2
from chainer.functions.connection.convolution_2d import (
    Convolution2DFunction,
    Convolution2DGradW,
)
from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction
from chainer.functions.connection.linear import (
    LinearFunction,
    LinearGradData,
    LinearGradWeight,
)
from chainer.functions.loss.softmax_cross_entropy import SoftmaxCrossEntropy
from chainer.functions.math.average import Mean
from chainer.functions.math.basic_math import Add
from chainer.functions.math.sum import Sum
from chainer.functions.normalization import batch_normalization as chainers_bn
from chainer.functions.normalization.batch_normalization import (
    GeneralBatchNormalizationImpl,
)
from chainer.functions.pooling.average_pooling_2d import (
    AveragePooling2D,
    AveragePooling2DGrad,
)
from chainer.functions.pooling.max_pooling_nd import MaxPoolingND, MaxPoolingNDGrad
from chainer.optimizer import GradientMethod, UpdateRule
from chainer.optimizers.adam import AdamRule
from chainer.optimizers.momentum_sgd import MomentumSGDRule

from chainer_revive.cpu import (
    batch_normalization,
    compiled,
    convolution,
    cross_entropy,
    elementwise,
    function_node,
    linear,
    optimizers,
    pooling,
)
from chainer_revive.either import either

FAST: dict[tuple[object, str], Callable] = {
    (FunctionNode, "apply"): function_node.apply,
    (backend, "get_device_from_array"): function_node.device_of,
    (variable, "_check_grad_type"): function_node.check_grad_type,
    **{
        (owner, name): fast
        for owner, fast in (
            (Convolution2DFunction, convolution.forward),
            (Convolution2DGradW, convolution.gradient_w),
            (Deconvolution2DFunction, convolution.transposed),
        )
        for name in ("_forward_cpu_core", "_forward_grouped_convolution")
    },
    (Convolution2DFunction, "backward"): convolution.backward,
    (LinearFunction, "forward"): linear.forward,
    (LinearFunction, "backward"): linear.backward,
    (LinearGradData, "forward"): linear.gradient_x,
    (LinearGradWeight, "forward"): linear.gradient_w,
    (GeneralBatchNormalizationImpl, "forward"): batch_normalization.forward,
    (GeneralBatchNormalizationImpl, "backward"): batch_normalization.backward,
    (chainers_bn, "_apply_bn_fwd"): batch_normalization.apply,
    (MaxPoolingND, "forward_cpu"): pooling.max_forward,
    (MaxPoolingND, "backward"): pooling.max_backward,
    (MaxPoolingNDGrad, "forward_cpu"): pooling.max_gradient,
    (AveragePooling2D, "forward_cpu"): pooling.average_forward,
    (AveragePooling2DGrad, "forward_cpu"): pooling.average_backward,
    (Mean, "backward"): pooling.mean_backward,
    (ReLU, "forward_cpu"): elementwise.relu,
    (ReLU, "backward"): elementwise.relu_backward,
    (ReLUGrad2, "forward_cpu"): elementwise.relu_gradient,
    (Add, "forward"): elementwise.add,
    (Sum, "forward"): elementwise.sums,
    (UpdateRule, "update"): optimizers.update,
    (GradientMethod, "reallocate_cleared_grads"): optimizers.reallocate_cleared_grads,
    (SoftmaxCrossEntropy, "forward_cpu"): cross_entropy.forward,
    (SoftmaxCrossEntropy, "backward"): cross_entropy.backward,
    (MomentumSGDRule, "update_core_cpu"): optimizers.momentum_sgd,
    (AdamRule, "update_core_cpu"): optimizers.adam,
}
ORIGINALS = {(owner, name): getattr(owner, name) for owner, name in FAST}


def install() -> None:
    """Puts the fast functions in, as ``CHAINER_MMIX_CPU`` asks.

    Raises:
        ImportError: ``CHAINER_MMIX_CPU`` has an unknown value.

    """
    default = "numba" if compiled.available else "numpy"
    path = os.environ.get("CHAINER_MMIX_CPU") or default
    if path not in ("0", "numpy", "numba"):
        raise ImportError(
            f"CHAINER_MMIX_CPU={path} is unknown: set it to 0 for Chainer's own code "
            "or to numpy or numba, or leave it unset"
        )
    use("chainer" if path == "0" else path)


def use(path: str) -> None:
    """Switches the whole process to other code.

    Args:
        path (str): ``"chainer"`` for Chainer's own functions, ``"numpy"`` for fast ones
            that need nothing else, or ``"numba"`` for these with compiled loops.
    """
    compiled.wanted = path == "numba"
    for (owner, name), original in ORIGINALS.items():
        method = original if path == "chainer" else either(FAST[owner, name], original)
        setattr(owner, name, method)
