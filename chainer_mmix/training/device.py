from __future__ import annotations

from typing import Any

import chainer
from chainer.backends import cuda

from chainer_revive.gpu_check import faults


def get_device(spec: str | int) -> chainer.backend.Device:
    """Finds the device that a specifier names, and checks that it can be used.

    Args:
        spec (str or int): One of Chainer's specifiers, such as ``"@numpy"`` or
            ``"@cupy:0"``, or the number of a GPU, negative for the CPU.

    Returns:
        chainer.backend.Device: The device.

    Raises:
        ValueError: If there is no such device; the message says what to install.
    """
    gpu = _gpu_number(str(spec))
    if gpu is not None and gpu >= 0:
        _check_gpu(gpu)
    try:
        return chainer.get_device(spec)
    except Exception as e:  # ChainerX and iDeep raise what they like.
        raise ValueError(
            f"there is no device {spec!r} here ({str(e).rstrip('.')}): use @numpy for "
            "the CPU or @cupy:0 for the first GPU"
        ) from e


def given_device(spec: Any) -> Any:
    """Returns the device of an argument: what is a device, or ``None``, as it is.

    Raises:
        ValueError: As for :func:`get_device`.
    """
    if spec is None or isinstance(spec, chainer.backend.Device):
        return spec
    return get_device(spec)


def _gpu_number(spec: str) -> int | None:
    try:
        return int(spec.removeprefix("@cupy:"))
    except ValueError:
        return None


def _check_gpu(gpu: int) -> None:
    try:
        import cupy
    except ImportError as e:
        raise ValueError(
            f"GPU {gpu} needs CuPy, which cannot be imported ({e}): install "
            "'chainer-mmix[cuda13]' (or [cuda12] for a driver of CUDA 12), or train "
            "on the CPU"
        ) from e
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as e:
        remedy = faults.sentence(e) or "install NVIDIA's driver, or train on the CPU"
        raise ValueError(
            f"GPU {gpu} cannot be used, for CuPy finds none ({e}): {remedy}"
        ) from e
    if gpu >= count:
        raise ValueError(
            f"there is no GPU {gpu}: this machine has {count}, numbered from 0"
        )
    if not cuda.available:
        raise ValueError(
            f"GPU {gpu} cannot be used by Chainer "
            f"({getattr(cuda, '_resolution_error', None)}): install "
            "'chainer-mmix[cuda13]' or [cuda12], whichever the driver is for"
        )
