"""Chainer's own use of CuPy 13 and 14."""

import sys
from types import ModuleType, SimpleNamespace

import chainer
import numpy as np
import pytest
from chainer.backends import cuda
from chainer.training.updaters import multiprocess_parallel_updater as multiprocess

from chainer_revive.compat import runtime


@pytest.fixture
def chainermn_memory(monkeypatch):
    """ChainerMN's module, with or without MPI."""
    if "mpi4py" not in sys.modules:
        mpi4py, mpi = ModuleType("mpi4py"), ModuleType("mpi4py.MPI")
        mpi.FLOAT, mpi4py.MPI = None, mpi
        monkeypatch.setitem(sys.modules, "mpi4py", mpi4py)
        monkeypatch.setitem(sys.modules, "mpi4py.MPI", mpi)
    from chainermn.communicators import _memory_utility

    return _memory_utility


@pytest.mark.parametrize("name", ["_memcpy_gather", "_memcpy_scatter"])
def test_kernels_of_the_multiprocess_updater_compile(
    name, nvrtc, elementwise_source, monkeypatch
):
    import cupy

    monkeypatch.setattr(cuda, "elementwise", cupy.ElementwiseKernel)
    kernel = getattr(multiprocess, name)()
    # Pointers, dtypes, offsets and the flat array.
    source = elementwise_source(
        kernel,
        ["u8", "i1", "i4", "f4"][: len(kernel.in_params)],
        ["f4"][: len(kernel.out_params)],
    )
    nvrtc(source, name)


@pytest.mark.parametrize("installed", [False, True])
def test_nccl_is_available_if_it_is_installed(installed, python):
    """CuPy's module is there in any case."""
    pytest.importorskip("cupy")
    found = python(f"""
import sys
from types import ModuleType
nccl = ModuleType("cupy.cuda.nccl")
nccl.available = {installed}
import cupy
cupy.cuda.nccl = sys.modules["cupy.cuda.nccl"] = nccl
from chainer.training.updaters import MultiprocessParallelUpdater
print(MultiprocessParallelUpdater.available())
if not {installed}:
    try:
        MultiprocessParallelUpdater([], None)
    except Exception as e:
        print(e)
""")
    first, *error = found.splitlines()
    assert first == str(installed)
    assert installed or "Install nvidia-nccl-cu12 for CuPy 13, or" in error[1]


@pytest.mark.parametrize("name", ["pack", "unpack"])
def test_kernels_of_chainermn_compile(name, nvrtc, chainermn_memory, monkeypatch):
    sources = []
    monkeypatch.setattr(cuda, "raw", lambda *args: sources.append(args))
    getattr(chainermn_memory, f"_cupy_batched_{name}_params")()
    nvrtc(*sources[0])


def test_chainermn_unpacks_into_gradients_of_another_dtype(chainermn_memory):
    class Buffer:
        def to_device(self, array, size, offset, stream):
            array[...] = np.frombuffer(b"\0\0\x80\x3f" * 5, "f4", len(array), offset)

    params = [chainer.Parameter(np.zeros(n, "f2")) for n in (2, 3)]
    for param in params:
        param.grad = np.zeros_like(param.array)
    chainermn_memory.unpack_params(params, "grad", Buffer(), np.float32, True)
    assert [p.grad.tolist() for p in params] == [[1, 1], [1, 1, 1]]
    assert params[0].grad.dtype == np.float16


@pytest.mark.parametrize("pinned", [False, True])
def test_an_array_in_pinned_memory_may_be_overwritten_once_sent(pinned):
    array = np.arange(3)

    def is_memory_pinned(address):
        return pinned and address == array.ctypes.data

    cupy = SimpleNamespace(
        asarray=lambda array, blocking: (array, blocking),
        cuda=SimpleNamespace(
            pinned_memory=SimpleNamespace(is_memory_pinned=is_memory_pinned)
        ),
    )
    sent, blocking = runtime.send(cupy, array)
    assert sent is array and blocking == pinned


@pytest.mark.gpu
def test_to_gpu():
    import cupy

    array = np.arange(1 << 20)
    pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(array.nbytes), array.dtype)
    pinned = pinned[: array.size]
    pinned[:] = array
    for source in (array.copy(), pinned):
        sent = cuda.to_gpu(source)
        source[:] = 0
        np.testing.assert_array_equal(sent.get(), array)


@pytest.mark.parametrize("major", [13, 14])
def test_nobody_is_told_to_reinstall_cupy_14(major, monkeypatch, recwarn):
    monkeypatch.setattr(cuda, "available", True)
    monkeypatch.setattr(cuda, "_cupy_major", major)
    monkeypatch.setattr(cuda, "_cudnn_disabled_by_user", False, raising=False)
    monkeypatch.setattr(cuda.check_cuda_available, "_already_warned", False, False)
    cuda.check_cuda_available()
    assert len(recwarn) == (major < 14)
    if recwarn:
        message = str(recwarn.pop().message)
        assert message == (
            'cuDNN is not enabled.\nInstall "chainer-mmix[cuda12]"\n'
            '(see what "chainer-mmix doctor" says).'
        )


def test_without_cuda_the_error_names_the_command(monkeypatch):
    monkeypatch.setattr(cuda, "available", False)
    monkeypatch.setattr(cuda, "_resolution_error", "no libcuda", raising=False)
    with pytest.raises(RuntimeError, match=r'"chainer-mmix doctor" says\). no libcuda'):
        cuda.check_cuda_available()


def test_the_kernel_of_pure_nccl_compiles(nvrtc, elementwise_source):
    """Written out in the middle of a method, where it divides the sums."""
    import cupy

    for dtype in ("float16", "float32"):
        kernel = cupy.ElementwiseKernel("", f"{dtype} x", "x *= (1.0/8)", "div_by_size")
        nvrtc(elementwise_source(kernel, [], [dtype]), "div_by_size")
