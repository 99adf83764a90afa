"""The card and the software that a verdict applies to."""

from __future__ import annotations

import contextlib
import hashlib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def usable_layers() -> set[str]:
    """Returns the layers for a GPU that can be used with what is installed."""
    return {"cuda", "capture"} | ({"cudnn"} if cudnn_versions() else set())


def cudnn_versions() -> tuple[str, str] | None:
    """Returns the versions of cuDNN 9 and its frontend, if they are to be used.

    On CuPy 13, Chainer has cuDNN by itself.
    """
    from chainer.backends import cuda

    from chainer_revive.cudnn.versions import versions

    if cuda.cudnn_enabled:
        return None
    try:
        return versions()
    except ImportError:
        return None


def describe(modules: list[str], device: int | None = None) -> dict[str, object]:
    """Describes a GPU and all that computes on it, as JSON can hold it.

    It does not take the GPU, which may be for one process at a time.

    Args:
        modules: Those with more functions to check.
        device (int): The number of the GPU; by default the current one.
    """
    import cupy

    runtime = cupy.cuda.runtime
    if device is None:
        device = runtime.getDevice()
    properties = runtime.getDeviceProperties(device)
    cudnn = cudnn_versions()
    return {
        "card": properties["name"].decode(),
        "compute capability": f"{properties['major']}.{properties['minor']}",
        "memory": properties["totalGlobalMem"],
        "driver": _driver(),
        "CUDA of the driver": runtime.driverGetVersion(),
        "CUDA": runtime.runtimeGetVersion(),
        "CuPy": cupy.__version__,
        "cuDNN": cudnn and cudnn[0],
        "cuDNN frontend": cudnn and cudnn[1],
        "chainer-mmix": _version(),
        "sources": _digest(["chainer_revive", *modules]),
        "modules": modules,
    }


def _driver() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0].strip()
    return "unknown"


def _version() -> str | None:
    with contextlib.suppress(PackageNotFoundError):
        return version("chainer-mmix")
    return None


def _digest(modules: list[str]) -> str:
    """Returns a hash of the sources of the packages that have these modules."""
    digest = hashlib.sha256()
    for name in sorted({module.partition(".")[0] for module in modules}):
        module = import_module(name)
        folders = map(Path, getattr(module, "__path__", ()))
        files = [file for folder in folders for file in folder.rglob("*.py")]
        for file in sorted(files) or [Path(module.__file__)]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
