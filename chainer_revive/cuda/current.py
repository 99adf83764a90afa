"""The launcher that computes on all parameters of a network at once."""

from __future__ import annotations

from chainer_revive import registry
from chainer_revive.cuda.tensor import Launcher

launcher: Launcher | None = None  # None for Chainer's own code


def use(new: Launcher | None) -> None:
    """Has optimizers and losses compute by a launcher; ``None`` for Chainer's code."""
    global launcher
    if new is None:
        registry.switch("cuda", False)
    launcher = new
    if new is not None:
        registry.switch("cuda", True)


def on_cupy() -> Launcher:
    """Returns the launcher for CuPy's arrays.

    Raises:
        ImportError: If CuPy is missing.
    """
    from chainer_revive.cuda.launcher import CudaLauncher

    return CudaLauncher()
