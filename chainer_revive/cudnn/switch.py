"""Puts the functions that call cuDNN into Chainer's classes."""

from __future__ import annotations

import os
from collections.abc import Callable

from chainer.functions.activation.relu import ReLU, ReLUGrad2
from chainer.functions.connection.convolution_2d import (
    Convolution2DFunction,
    Convolution2DGradW,
)
from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction
from chainer.functions.math.basic_math import Add, MultiAdd
from chainer.functions.normalization.batch_normalization import (
    BatchNormalization,
    FixedBatchNormalization,
)

from chainer_revive.cudnn import batch_normalization, convolution, elementwise
from chainer_revive.either import either

FAST: dict[tuple[type, str], Callable] = {
    (Convolution2DFunction, "forward_gpu"): convolution.forward,
    (Convolution2DGradW, "forward_gpu"): convolution.gradient_w,
    (Deconvolution2DFunction, "forward_gpu"): convolution.transposed,
    (BatchNormalization, "forward"): batch_normalization.choose,
    (FixedBatchNormalization, "forward"): batch_normalization.fixed,
    (ReLU, "forward_gpu"): elementwise.relu,
    (ReLUGrad2, "forward_gpu"): elementwise.relu_gradient,
    (Add, "forward"): elementwise.add,
    (MultiAdd, "forward"): elementwise.add,
}
ORIGINALS = {(owner, name): getattr(owner, name) for owner, name in FAST}

_on = False


def install() -> None:
    """Switches cuDNN on if ``CHAINER_MMIX_CUDNN=1`` asks for it.

    Raises:
        ImportError: ``CHAINER_MMIX_CUDNN`` has an unknown value, or a package is
            missing.

    """
    asked = os.environ.get("CHAINER_MMIX_CUDNN") or "0"
    if asked not in ("0", "1"):
        raise ImportError(
            f"CHAINER_MMIX_CUDNN={asked} is unknown: set it to 1 for cuDNN "
            "(experimental), or leave it unset for Chainer's own code"
        )
    use(asked == "1")


def use(on: bool) -> None:
    """Switches cuDNN on or off for the whole process.

    Args:
        on (bool): Whether convolutions and batch normalisation on a GPU run through
            cuDNN.

    Raises:
        ImportError: CuPy, cuDNN or its frontend is missing.

    """
    global _on
    if on:
        _versions()
    for (owner, name), original in ORIGINALS.items():
        setattr(owner, name, either(FAST[owner, name], original) if on else original)
    _on = on


def describe() -> str:
    """Says in one line what convolutions on a GPU run through."""
    if not _on:
        return "GPU: Chainer's own code (CHAINER_MMIX_CUDNN=1 switches cuDNN on)"
    cudnn, frontend = _versions()
    return f"GPU: cuDNN {cudnn} through nvidia-cudnn-frontend {frontend} (experimental)"


def _versions() -> tuple[str, str]:
    """Returns the versions of cuDNN and of its frontend."""
    try:
        import cudnn
        import cupy  # noqa: F401

        return cudnn.backend_version_string(), cudnn.__version__
    except (
        Exception
    ) as e:  # The frontend raises RuntimeError where libcudnn is missing.
        raise ImportError(
            f"CHAINER_MMIX_CUDNN=1 needs CuPy, cuDNN 9 and its frontend, but: {e}. "
            "Install 'chainer-mmix[cuda13]' (or [cuda12] for a driver of CUDA 12), or "
            "unset CHAINER_MMIX_CUDNN for Chainer's own code"
        ) from e
