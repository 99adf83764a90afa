"""What is started in place of ``python -m chainer_revive.gpu_check``: NumPy is the GPU.

usage: child.py FAULT FUNCTION FILE DEVICE BESIDE AHEAD [MODULE ...]
"""

import os
import signal
import sys
import time

import chainer  # noqa: F401
import faults
from numpy_gpu import NumpyGpu

from chainer_revive.gpu_check.__main__ import main


class CUDARuntimeError(RuntimeError):
    pass


def lost(array):
    raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access")


class OutOfMemoryError(MemoryError):
    pass


def full(array):
    raise OutOfMemoryError("Out of memory allocating 1,024 bytes")


DAMAGES = {
    "full": full,
    "wrong": faults.wrong,
    "lost": lost,
    "killed": lambda array: os.abort(),
    "ended": lambda array: os.kill(os.getpid(), signal.SIGKILL),  # by the kernel, say
    "hangs": lambda array: time.sleep(60),
}

if __name__ == "__main__":
    fault, function, path, device, beside, ahead, *modules = sys.argv[1:]
    if fault == "no context":
        raise CUDARuntimeError("cudaErrorDevicesUnavailable: busy or unavailable")
    if fault == "threads" and ahead == "1":
        NumpyGpu.wait = lambda self: os.abort()
    if fault in DAMAGES:
        faults.plant(function, DAMAGES[fault])
    with open(f"{os.environ['XDG_CACHE_HOME']}/checks", "a") as file:
        file.write("checked\n")
    layers = {"cuda", "cudnn", "capture"}
    main(path, NumpyGpu(modules), layers, modules, beside == "1", ahead == "1")
