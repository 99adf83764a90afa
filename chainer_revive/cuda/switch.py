"""Puts this package's optimizer step into Chainer's classes, and its losses to work."""

from __future__ import annotations

import os

from chainer.backends import cuda
from chainer.optimizer import GradientMethod, Optimizer

from chainer_revive.cuda import cross_entropy, optimizers

FAST = {
    (GradientMethod, "update"): optimizers.update,
    (Optimizer, "check_nan_in_grads"): optimizers.check_nan_in_grads,
}
ORIGINALS = {(owner, name): getattr(owner, name) for owner, name in FAST}


def install() -> None:
    """Puts it in, if ``CHAINER_MMIX_CUDA`` asks for it and there is a GPU.

    Raises:
        ImportError: ``CHAINER_MMIX_CUDA`` has an unknown value.

    """
    wanted = os.environ.get("CHAINER_MMIX_CUDA") or "0"
    if wanted not in ("0", "1"):
        raise ImportError(
            f"CHAINER_MMIX_CUDA={wanted} is unknown: set it to 1 for one kernel a step "
            "of an optimizer and one a loss, or to 0, or leave it unset, for Chainer's "
            "own code"
        )
    if wanted == "1" and cuda.available:
        use()


def use(launcher: optimizers.Launcher | None = None) -> None:
    """Switches the whole process to this package's code.

    Args:
        launcher (Launcher): What computes; by default CUDA kernels on CuPy's arrays.
    """
    if launcher is None:
        from chainer_revive.cuda.launcher import CudaLauncher

        launcher = CudaLauncher()
    optimizers.launcher = cross_entropy.launcher = launcher
    for (owner, name), fast in FAST.items():
        setattr(owner, name, fast)


def use_chainers() -> None:
    """Switches the whole process back to Chainer's own code."""
    cross_entropy.launcher = None
    for (owner, name), original in ORIGINALS.items():
        setattr(owner, name, original)
