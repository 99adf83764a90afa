"""Puts the fast functions into Chainer's classes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from chainer.functions.connection.convolution_2d import (
    Convolution2DFunction,
    Convolution2DGradW,
)
from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction
from chainer.functions.normalization import batch_normalization as chainers_bn
from chainer.functions.normalization.batch_normalization import (
    GeneralBatchNormalizationImpl,
)
from chainer.functions.pooling.average_pooling_2d import (
    AveragePooling2D,
    AveragePooling2DGrad,
)
from chainer.functions.pooling.max_pooling_nd import MaxPoolingND, MaxPoolingNDGrad
from chainer.optimizers.adam import AdamRule
from chainer.optimizers.momentum_sgd import MomentumSGDRule

from chainer_mmix.backends.cpu import (
    batch_normalization,
    convolution,
    optimizers,
    pooling,
)

FAST: dict[tuple[object, str], Callable] = {
    **{
        (owner, name): fast
        for owner, fast in (
            (Convolution2DFunction, convolution.forward),
            (Convolution2DGradW, convolution.gradient_w),
            (Deconvolution2DFunction, convolution.transposed),
        )
        for name in ("_forward_cpu_core", "_forward_grouped_convolution")
    },
    (GeneralBatchNormalizationImpl, "forward"): batch_normalization.forward,
    (GeneralBatchNormalizationImpl, "backward"): batch_normalization.backward,
    (chainers_bn, "_apply_bn_fwd"): batch_normalization.apply,
    (MaxPoolingND, "forward_cpu"): pooling.max_forward,
    (MaxPoolingNDGrad, "forward_cpu"): pooling.max_backward,
    (AveragePooling2D, "forward_cpu"): pooling.average_forward,
    (AveragePooling2DGrad, "forward_cpu"): pooling.average_backward,
    (MomentumSGDRule, "update_core_cpu"): optimizers.momentum_sgd,
    (AdamRule, "update_core_cpu"): optimizers.adam,
}
ORIGINALS = {(owner, name): getattr(owner, name) for owner, name in FAST}


def install() -> None:
    """Puts the fast functions in, unless ``CHAINER_MMIX_CPU=0`` asks for Chainer's."""
    use("chainer" if os.environ.get("CHAINER_MMIX_CPU") == "0" else "numpy")


def use(path: str) -> None:
    """Switches the whole process to other code.

    Args:
        path (str): ``"chainer"`` for Chainer's own functions or ``"numpy"`` for the
            fast ones.
    """
    for (owner, name), original in ORIGINALS.items():
        method = original if path == "chainer" else _either(FAST[owner, name], original)
        setattr(owner, name, method)


def _either(fast: Callable, original: Callable) -> Callable:
    @functools.wraps(original)
    def call(*args, **kwargs):
        result = fast(*args, **kwargs)
        return original(*args, **kwargs) if result is NotImplemented else result

    return call
