"""Chooses the code that Chainer runs through on this machine, and describes it."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

from chainer_revive import registry

_PATHS = ("chainer", "numpy", "numba")
_WORDS: dict[str, bool | str] = {"": "auto", "auto": "auto", "0": False, "1": True}
_waiting: frozenset[str] = frozenset()  # layers of which a check decides


def use(
    cpu: str | None = None,
    cuda: bool | str | None = None,
    cudnn: bool | str | None = None,
) -> None:
    """Switches the whole process to other code; ``None`` leaves a part unchanged.

    Args:
        cpu (str): ``"chainer"`` for Chainer's own functions, ``"numpy"`` for fast
            functions that need only NumPy, or ``"numba"`` for compiled loops where
            there are any.
        cuda (bool or str): Whether an optimizer step and a loss are one kernel each on
            a GPU; ``"auto"`` to check the kernels at the first use of the GPU, and use
            those that compute correctly there.
        cudnn (bool or str): Whether convolution and batch normalisation on a GPU run
            through cuDNN 9; ``"auto"`` as for ``cuda``.

    Raises:
        ValueError: If an argument has another value.
        ImportError: If a package that ``cuda`` or ``cudnn`` needs is not installed.
    """
    import chainer  # noqa: F401  (switches all on that the environment asks for)

    if cpu not in (None, *_PATHS):
        raise ValueError(f"cpu must be one of {', '.join(_PATHS)}, not {cpu!r}")
    for name, on in (("cuda", cuda), ("cudnn", cudnn)):
        if on not in (None, True, False, "auto"):
            raise ValueError(f'{name} must be True, False or "auto", not {on!r}')
    if cudnn is True:
        from chainer_revive.cudnn.versions import versions

        versions()
    if cuda is not None or cudnn is not None:
        _use_on_a_gpu({"cuda": cuda, "cudnn": cudnn})
    if cpu is not None:
        from chainer_revive.cpu import compiled

        compiled.wanted = cpu == "numba"
        registry.switch("cpu", cpu != "chainer")


def _use_on_a_gpu(asked: dict[str, bool | str | None]) -> None:
    global _waiting
    now = {layer: on for layer, on in asked.items() if on is not None}
    _waiting = _waiting - now.keys() | {k for k, on in now.items() if on == "auto"}
    if "cuda" in now:
        from chainer_revive.cuda import current

        current.use(current.on_cupy() if now["cuda"] is True else None)
    if "cudnn" in now:
        registry.switch("cudnn", now["cudnn"] is True)
    if insisted := {layer for layer, on in now.items() if on is True}:
        names = registry.left_off()
        registry.leave_off(n for n in names if n.partition("/")[0] not in insisted)
    if _waiting:
        from chainer_revive.gpu_check import auto

        auto.wait(_waiting)
    else:
        registry.wait(None)


def use_what_the_environment_asks_for() -> None:
    """Calls :func:`use` as ``CHAINER_MMIX_CPU``, ``_CUDA`` and ``_CUDNN`` say.

    Raises:
        ImportError: If one of them has an unknown value, or a package is missing.
    """
    from chainer.backends import cuda

    from chainer_revive.cpu import compiled, heap

    path = _asked(
        "CPU",
        ("0", "numpy", "numba"),
        "set it to 0 for Chainer's own code or to numpy or numba, or leave it unset",
    )
    if path == "0":
        path = "chainer"
    else:
        heap.keep_memory()
    use(cpu=path or ("numba" if compiled.available else "numpy"))
    asked = {
        part: _WORDS[_asked(part, tuple(_WORDS), f"set it to 0 for {remedy}")]
        for part, remedy in (
            (
                "CUDA",
                "Chainer's own optimizers and losses, or to 1 for one kernel a step",
            ),
            ("CUDNN", "Chainer's own code, or to 1 for cuDNN 9"),
        )
    }
    if cuda.available:
        use(cuda=asked["CUDA"], cudnn=asked["CUDNN"])
    elif asked["CUDNN"] is True:
        use(cudnn=True)


def _asked(part: str, known: tuple[str, ...], remedy: str) -> str:
    name = f"CHAINER_MMIX_{part}"
    value = os.environ.get(name, "")
    if value not in ("", *known):
        raise ImportError(f"{name}={value} is unknown: {remedy}")
    return value


def state() -> dict[str, Any]:
    """Describes the code that Chainer runs through, for the record of a run.

    Returns:
        dict: Values of JSON types:

        - ``cpu``: as in :func:`use`;
        - ``numba``: its version, or ``None`` if it is not used;
        - ``threads``: the number of threads of its loops, or ``None``;
        - ``winograd``: ``chainer.config.winograd``, or ``None``;
        - ``blas``: name, version and number of threads of NumPy's BLAS, or ``None`` if
          threadpoolctl is not installed or does not know it;
        - ``cuda``: a bool;
        - ``cudnn``: its version, or ``None`` if it is not used;
        - ``left_off``: the functions of both that have failed the check on this GPU.
    """
    import chainer  # noqa: F401
    import numpy as np

    from chainer_revive.cpu import blas, compiled

    cpu = "chainer"
    numba = threads = winograd = None
    if registry.is_on("cpu"):
        loops = compiled.loops(np.dtype(np.float32))
        cpu = "numba" if loops else "numpy"
        if loops:
            numba, threads = version("numba"), loops.threads.count()
            winograd = loops.convolution.winograd_wanted()
    library = blas.controller()
    if registry.is_on("cudnn"):
        from chainer_revive.cudnn.versions import versions

        cudnn = versions()[0]
    else:
        cudnn = None
    return {
        "cpu": cpu,
        "numba": numba,
        "threads": threads,
        "winograd": winograd,
        "blas": library
        and {
            "name": library.internal_api,
            "version": library.version,
            "threads": library.get_num_threads(),
        },
        "cuda": registry.is_on("cuda"),
        "cudnn": cudnn,
        "left_off": registry.left_off(),
    }


def describe() -> str:
    """Returns a few lines about the code that Chainer runs through on this machine."""
    from chainer.backends import cuda

    now = state()
    path = {
        "chainer": "Chainer's own code",
        "numpy": "NumPy (no compiled loops)",
        "numba": f"loops compiled by Numba {now['numba']}, threads: {now['threads']}",
    }[now["cpu"]]
    lines = [f"CPU: {path}"]
    if blas := now["blas"]:
        lines.append(
            f"BLAS: {blas['name']} {blas['version']}, threads: {blas['threads']}"
        )
    if not cuda.available:
        lines.append("GPU: none that CuPy can use")
    else:
        from chainer_revive import cudnn

        lines.append(cudnn.describe())
        if now["cuda"]:
            lines.append("GPU: one kernel a step of an optimizer, one a loss")
        if now["left_off"]:
            lines.append(
                f"GPU: left to Chainer's own code: {', '.join(now['left_off'])}"
            )
    return "\n".join(lines)
