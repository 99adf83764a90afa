"""An H100 that has memory and computes nothing: CuPy 13 or 14 and cuDNN 9 run on it.

CuPy's modules call CUDA through C functions of some of its modules, which each of the
others looks up when it is imported; here they are replaced before. NVRTC compiles and
cuDNN 9 plans in earnest; every result is what the memory had before. cuDNN 8 refuses
to start, as it should where a graph is captured.

usage: idle_gpu.py [MODULE ...], with a stub of libcuda on LD_LIBRARY_PATH. Checks all
functions, and prints the seconds of a processor that its parts take, as JSON.
"""

import ctypes
import itertools
import json
import os
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from chainer_revive.compat import libraries

_C_TYPES = {
    "CUdevice": ctypes.c_int,
    "PY_LONG_LONG": ctypes.c_longlong,
    "cudaMemcpyKind": ctypes.c_int,
    "float": ctypes.c_float,
    "int": ctypes.c_int,
    "intptr_t": ctypes.c_ssize_t,
    "size_t": ctypes.c_size_t,
    "uintmax_t": ctypes.c_uint64,
    "unsigned int": ctypes.c_uint,
    "unsigned long long": ctypes.c_ulonglong,
}
_OBJECT = "PyObject *"
_MODULES = "api.driver", "api.runtime", "libs.cublas"
_LIBRARIES = "libnvJitLink.so.13", "libcublasLt.so.13", "libcublas.so.13"
_ALIGNMENT = 512


def cupy_major():
    """The version of CuPy that an extra has installed, or ``None``."""
    for name in ("cupy-cuda13x", "cupy-cuda12x"):
        try:
            return int(version(name).partition(".")[0])
        except PackageNotFoundError:
            pass


_CUDA = 13000 if cupy_major() == 14 else 12090
_numbers = itertools.count(1 << 12)  # of streams, events, modules
_blocks = {}
_kept = []  # C functions must outlive their users


def _malloc(size, *_):
    block = ctypes.create_string_buffer(size + _ALIGNMENT)
    address = -(-ctypes.addressof(block) // _ALIGNMENT) * _ALIGNMENT
    _blocks[address] = block
    return address


def _free(address, *_):
    _blocks.pop(address, None)


def _copy(target, source, size, *_):
    ctypes.memmove(target, source, size)


def _set(address, value, size, *_):
    ctypes.memset(address, value, size)


def _number(*_):
    return next(_numbers)


def _attributes(address):
    runtime = import_module("cupy_backends.cuda.api.runtime")
    return runtime.PointerAttributes(0, 0, 0, 0)  # of memory that CUDA does not know


_PROPERTIES = {
    "name": b"NVIDIA H100 80GB HBM3",
    "major": 9,
    "minor": 0,
    "multiProcessorCount": 132,
    "totalGlobalMem": 85520809984,
}
# Of cudaDeviceAttr: threads a block, shared memory, warp, capability.
_ATTRIBUTES = {1: 1024, 8: 49152, 10: 32, 75: 9, 76: 0, 81: 233472}
_FUNCTIONS = {
    "malloc": _malloc,
    "hostAlloc": _malloc,
    "free": _free,
    "freeHost": _free,
    "memcpy": _copy,
    "memcpyAsync": _copy,
    "memset": _set,
    "memsetAsync": _set,
    "getDeviceCount": lambda: 1,
    "getDeviceProperties": lambda device: _PROPERTIES,
    "deviceGetAttribute": lambda attribute, device: _ATTRIBUTES.get(attribute, 0),
    "driverGetVersion": lambda: _CUDA,
    "runtimeGetVersion": lambda: _CUDA,
    "_getCUDAMajorVersion": lambda: _CUDA // 1000,
    "pointerGetAttributes": _attributes,
    "memGetInfo": lambda: (80 << 30, 80 << 30),
    "funcGetAttribute": lambda attribute, function: 1024,
    "eventCreateWithFlags": _number,
    "streamCreateWithFlags": _number,
    "streamCreateWithPriority": _number,
    "streamEndCapture": _number,
    "graphInstantiate": _number,
    "moduleLoadData": _number,
    "moduleGetFunction": _number,
    "create": _number,  # a handle of cuBLAS
}
_AS_THEY_ARE = "check_status", "_is_hip_environment", "get_build_version"


def install():
    """Replaces what calls CUDA; to be called before CuPy is imported."""
    assert "cupy._core.core" not in sys.modules
    libraries.load()
    for library in _LIBRARIES:
        for folder in import_module("nvidia").__path__:
            path = Path(folder) / "cu13" / "lib" / library
            if path.exists():
                ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    for name in _MODULES:
        module = import_module(f"cupy_backends.cuda.{name}")
        for function in set(module.__pyx_capi__).difference(_AS_THEY_ARE):
            _replace(module, function)


def _replace(module, name):
    api = ctypes.pythonapi
    capsule = ctypes.py_object(module.__pyx_capi__[name])
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    signature = api.PyCapsule_GetName(capsule)
    result, _, arguments = signature.decode().partition("(")
    kinds = [a.strip() for a in arguments.rstrip(")").split(",")]
    kinds = [kind for kind in kinds if kind not in ("", "void")]
    types = []
    for kind in kinds:
        if kind == _OBJECT:
            types.append(ctypes.py_object)
        elif kind == "int __pyx_skip_dispatch":
            types.append(ctypes.c_int)
        elif kind.startswith("struct"):  # optional arguments
            types.append(ctypes.c_void_p)
        else:
            types.append(_C_TYPES.get(kind))
    result = result.strip()
    is_instance = name in _FUNCTIONS and result.startswith("struct __pyx_obj")
    is_object = result == _OBJECT or is_instance
    if not arguments or None in types or not (is_object or result in _C_TYPES):
        return  # a number, or a struct: nothing here calls it
    n = sum(kind in _C_TYPES or kind == _OBJECT for kind in kinds)
    function = _FUNCTIONS.get(name, lambda *_: None if is_object else 0)

    def call(*args):
        value = function(*args[:n])
        if is_object:
            api.Py_IncRef(ctypes.py_object(value))
            return id(value)
        return value

    c_result = ctypes.c_void_p if is_object else _C_TYPES[result]
    pointer = ctypes.PYFUNCTYPE(c_result, *types)(call)
    _kept.append((pointer, signature))
    api.PyCapsule_New.restype = ctypes.py_object
    module.__pyx_capi__[name] = api.PyCapsule_New(
        ctypes.cast(pointer, ctypes.c_void_p), ctypes.c_char_p(signature), None
    )
    if hasattr(module, name):
        setattr(module, name, lambda *args, **kwargs: function(*args))


def main(modules):
    install()
    times = {"imports": time.process_time()}
    import chainer  # noqa: F401
    from cupy.cuda import compiler

    from chainer_revive.gpu_check import __main__ as command
    from chainer_revive.gpu_check import run
    from chainer_revive.gpu_check.card import usable_layers

    for name in modules:
        import_module(name)
    times["imports"] = time.process_time()
    times["kernels"] = timed(compiler._NVRTCProgram, "compile")
    times["plans"] = with_cudnn_9() if "cudnn" in usable_layers() else []
    # As on a GPU that computes right: else, CUDA graphs would be of Chainer's kernels.
    command.passes = lambda result: True
    ahead, started = run.compile_ahead, time.process_time()

    def compile_ahead(units, gpu):
        ahead(units, gpu)
        times["ahead"] = time.process_time() - started
        times["kernels ahead"] = len(times["kernels"])

    run.compile_ahead = compile_ahead
    with tempfile.TemporaryDirectory() as folder:
        lines = os.path.join(folder, "lines")
        gpu = run.Gpu(modules)
        command.main(lines, gpu, usable_layers(), modules, False, True)
        times["check"] = time.process_time() - started - times["ahead"]
        times["lines"] = Path(lines).read_text().splitlines()
    print(json.dumps(times), flush=True)
    os._exit(0)  # CuPy cannot tidy up after itself here


def with_cudnn_9():
    """Has cuDNN plan for the GPU, and call nothing; returns what each plan costs."""
    from chainer_revive.cudnn import executor, plans

    sys.path.append(str(Path(__file__).parents[1] / "cudnn"))
    from build_plans import target

    where = target("sm_90")
    executor.Executor._target = lambda self, device: where
    executor.Executor._run = lambda self, plan, handle, inputs, outputs: None
    return timed(plans, "get")


def timed(owner, name):
    """Has a function note what its calls cost the thread, in seconds."""
    original, seconds = getattr(owner, name), []

    def call(*args, **kwargs):
        started = time.thread_time()
        try:
            return original(*args, **kwargs)
        finally:
            seconds.append(time.thread_time() - started)

    setattr(owner, name, call)
    return seconds


if __name__ == "__main__":
    main(sys.argv[1:])
