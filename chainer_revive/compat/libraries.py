"""CUDA's libraries out of pip's wheels, where CuPy 13 does not look for them."""

from __future__ import annotations

import contextlib
import ctypes
import os
from importlib.util import find_spec
from pathlib import Path

# In the folders of their wheels, each after those that it needs.
_LIBRARIES = (
    "nvjitlink/lib/libnvJitLink.so.12",
    "cublas/lib/libcublasLt.so.12",
    "cublas/lib/libcublas.so.12",
    "cuda_nvrtc/lib/libnvrtc.so.12",
    "cuda_runtime/lib/libcudart.so.12",
    "cusparse/lib/libcusparse.so.12",
    "cusolver/lib/libcusolver.so.11",
    "cufft/lib/libcufft.so.11",
    "curand/lib/libcurand.so.10",
    "cudnn/lib/libcudnn.so.8",
)
_CUDNN = "libcudnn.so.8"

_NOTHING = "CUDA's libraries: where CuPy finds them"
_found = _NOTHING


def load() -> None:
    """Loads what the extra ``cuda12`` has installed, for CuPy to find it loaded.

    Does nothing where there is no cuDNN 8 among the wheels, or one is loaded already.
    """
    global _found
    folder = _folder()
    if folder is None or _found != _NOTHING:  # Without CuPy, others look for it again.
        return
    if is_loaded(_CUDNN):
        _found = "CUDA's libraries: cuDNN 8 was loaded before"
        return
    failures = []
    for library in _LIBRARIES:
        try:
            ctypes.CDLL(str(folder / library))
        except OSError as e:
            failures.append(str(e))
    _found = f"CUDA's libraries: {len(_LIBRARIES) - len(failures)} of the wheels in "
    _found += f"{folder}" + "".join(f"; {failure}" for failure in failures)


def found() -> str:
    """Says in one line where CUDA's libraries come from."""
    return _found


def is_loaded(soname: str) -> bool:
    """Tells whether the process has a library of this name."""
    try:
        ctypes.CDLL(soname, os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return False
    return True


def _folder() -> Path | None:
    spec = None
    with contextlib.suppress(ValueError):  # of a module without a spec
        spec = find_spec("nvidia")
    for place in (spec and spec.submodule_search_locations) or ():
        if Path(place, "cudnn", "lib", _CUDNN).exists():
            return Path(place)
    return None
