"""Faults of a GPU, its driver and its memory, each in a sentence with the remedy."""

from __future__ import annotations

import signal
from collections.abc import Mapping

_FULL = (
    "the GPU's memory is full: choose a smaller batch, or --dtype mixed16, or end "
    "what else runs on it (nvidia-smi lists it)"
)
# What CUDA's errors contain, in the runtime's words or the driver's.
_SENTENCES = (
    (
        ("OutOfMemoryError", "cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY"),
        _FULL,
    ),
    (
        (
            *("cudaErrorInsufficientDriver", "cudaErrorCallRequiresNewerDriver"),
            *("cudaErrorSystemDriverMismatch", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        ),
        "NVIDIA's driver is missing or too old for this CUDA: install or update it; "
        "'chainer-mmix[cuda12]' works with any from 525 on, [cuda13] from 580 on",
    ),
    (
        ("cudaErrorNoDevice", "CUDA_ERROR_NO_DEVICE"),
        "there is no GPU that CUDA may use: see what nvidia-smi lists, and whether "
        "CUDA_VISIBLE_DEVICES hides it",
    ),
    (
        ("cudaErrorDevicesUnavailable", "CUDA_ERROR_DEVICE_UNAVAILABLE"),
        "the GPU is taken by another process: choose another one, or see nvidia-smi",
    ),
    (
        (
            *("cudaErrorNoKernelImageForDevice", "CUDA_ERROR_NO_BINARY_FOR_GPU"),
            "invalid value for --gpu-architecture",  # NVRTC's words
        ),
        "the installed libraries have no code for this GPU: install "
        "'chainer-mmix[cuda13]' for one from Turing on, [cuda12] for an older one",
    ),
    (
        (
            *("cudaErrorIllegalAddress", "cudaErrorLaunchFailure", "cudaErrorUnknown"),
            "cudaErrorECCUncorrectable",
            *("CUDA_ERROR_ECC_UNCORRECTABLE", "CUDA_ERROR_UNKNOWN"),
            *("CUDA_ERROR_ILLEGAL_ADDRESS", "CUDA_ERROR_LAUNCH_FAILED"),
            *("cudaErrorMisalignedAddress", "CUDA_ERROR_MISALIGNED_ADDRESS"),
            *("cudaErrorLaunchTimeout", "CUDA_ERROR_LAUNCH_TIMEOUT"),
            *("cudaErrorContextIsDestroyed", "CUDA_ERROR_CONTEXT_IS_DESTROYED"),
        ),
        "the GPU is lost to this process: start it again with --resume auto, and see "
        "nvidia-smi and the kernel's log (Xid) if it happens again",
    ),
)

# Signals of a user, a scheduler, or a kernel that is short of memory.
_FROM_OUTSIDE = {
    signal.strsignal(getattr(signal, name))
    for name in ("SIGHUP", "SIGINT", "SIGKILL", "SIGTERM")
    if hasattr(signal, name)
}


def sentence(error: BaseException | str) -> str | None:
    """Returns what an error of CUDA's means and what helps, or ``None``."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    for names, meaning in _SENTENCES:
        if any(name in text for name in names):
            return meaning
    return None


def may_pass(crash: str) -> bool:
    """Tells whether what ended a check may be gone the next time."""
    return crash in _FROM_OUTSIDE or sentence(crash) == _FULL


def explain(error: BaseException) -> str:
    """Returns an error as one line, with what it means if that is known."""
    first = (str(error).splitlines() or [""])[0]
    line = f"{type(error).__name__}: {first}".rstrip(": ")
    meaning = sentence(error)
    return f"{line}; {meaning}" if meaning else line


def too_new(card: Mapping[str, object]) -> str | None:
    """Returns a sentence if a card is newer than cuDNN 8, and that is in use.

    Args:
        card: See :func:`chainer_revive.gpu_check.card.describe`.
    """
    from chainer.backends import cuda

    if not cuda.cudnn_enabled or float(str(card["compute capability"])) < 10:
        return None
    return (
        f"{card['card']} is newer than cuDNN 8, which knows cards up to Hopper: "
        "install 'chainer-mmix[cuda13]' in an environment of its own"
    )
