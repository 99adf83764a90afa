import chainer_mmix  # noqa: F401, I001  (Chainer needs it imported first)

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from chainer.backends import cuda
from hypothesis import settings

import chainer_revive
from chainer_revive.switches import use_what_the_environment_asks_for

# On a machine with a GPU, tests say themselves what they use of it.
for part in ("CUDA", "CUDNN"):
    os.environ.setdefault(f"CHAINER_MMIX_{part}", "0")
use_what_the_environment_asks_for()

# The first call of a kernel or a plot is slow: hypothesis must not count it. In CI, a
# change is judged by the same examples each time.
settings.register_profile("chainer_mmix", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("chainer_mmix")


def pytest_collection_modifyitems(items):
    if cuda.available:
        return
    skip = pytest.mark.skip(reason="needs CuPy and a GPU")
    for item in items:
        if item.get_closest_marker("gpu"):  # a folder may have the name, too
            item.add_marker(skip)


@pytest.fixture(scope="module", params=["numpy", "numba", "numba in parts"])
def path(request):
    """Tests NumPy, and compiled loops in large and in small parts."""
    path, _, parts = request.param.partition(" ")
    if path == "numba":
        pytest.importorskip("numba")
    chainer_revive.use(cpu=path)
    with in_parts() if parts else nullcontext():
        yield path
    use_what_the_environment_asks_for()


@pytest.fixture
def compiled_loops():
    """Has compiled loops compute, whatever the environment asks for."""
    before = chainer_revive.state()["cpu"]
    chainer_revive.use(cpu="numba")
    yield
    chainer_revive.use(cpu=before)


@contextmanager
def in_parts():
    from chainer_revive.cpu.numba import threads

    run = threads.run

    def finely(task, n, grain, *arguments):
        run(task, n, 1, *arguments)

    with (
        mock.patch.object(threads, "count", lambda: 3),
        mock.patch.object(threads, "run", finely),
    ):
        yield


@pytest.fixture
def hangups():
    """Has children heed SIGHUP, even where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def lay_out():
    """``lay_out(x, layout)`` copies an array into the memory layout of that name."""

    def contiguous(x):
        return np.ascontiguousarray(x)

    def last(x):
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)

    def every_second(x):
        return np.repeat(x, 2, axis=-1)[..., ::2]

    def reversed_(x):
        return np.ascontiguousarray(x[::-1, ..., ::-1])[::-1, ..., ::-1]

    layouts = {
        "channels first": contiguous,
        "channels last": last,
        "every second": every_second,
        "reversed": reversed_,
    }

    return lambda x, layout: layouts[layout](x)


@pytest.fixture(params=["75", "80", "90", "100"])
def nvrtc(request, monkeypatch):
    """``nvrtc(source, name)`` compiles CUDA for a device that need not be here."""
    pytest.importorskip("cupy")
    from cupy._core import core
    from cupy.cuda import compiler

    arch, built = request.param, []

    def compile_only(source, options=(), *args, **kwargs):
        if hasattr(compiler, "_get_extra_include_dir_opts"):  # CuPy 13
            options += compiler._get_extra_include_dir_opts()
        binary, _ = compiler.compile_using_nvrtc(source, options, arch, "kernel.cu")
        built.append(binary)
        raise StopIteration

    monkeypatch.setattr(compiler, "_compile_module_with_cache", compile_only)
    monkeypatch.setattr(
        compiler,
        "_get_arch_for_options_for_nvrtc",
        lambda _: ("-arch=sm_" + arch, "cubin"),
    )

    def compile_(source, name, raw=False):
        with pytest.raises(StopIteration):
            core.compile_with_cache(source, (), prepend_cupy_headers=not raw)
        binary = built.pop()
        assert binary[:4] == b"\x7fELF" and name.encode() in binary

    return compile_


@pytest.fixture
def elementwise_source():
    """Returns what CuPy would give to NVRTC for an ElementwiseKernel and arrays."""
    cupy = pytest.importorskip("cupy")
    from cupy._core import _carray, _kernel

    def source(kernel, inputs, outputs=()):
        inputs, outputs = ([np.dtype(t) for t in ts] for ts in (inputs, outputs))
        types = kernel._decide_params_type(tuple(inputs), tuple(outputs))
        arrays = [
            _kernel._ArgInfo(1, cupy.ndarray, dtype, 1, True, True)
            for dtype in (*types[0], *types[1])
        ]
        size = _kernel._ArgInfo(2, _carray.Indexer, None, 1, True, True)
        return _kernel._get_elementwise_kernel_code(
            (*arrays, size),
            types[2],
            kernel.params,
            kernel.operation,
            kernel.name,
            kernel.preamble,
            **kernel.kwargs,
        )

    return source


@pytest.fixture(scope="session")
def in_ranks():
    """``in_ranks(n, *words)`` runs Python with these words in n ranks of one thread."""
    pytest.importorskip("mpi4py", reason="needs the extra mpi")
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        pytest.skip("needs the extra mpi")

    def run(n, *words, timeout=100):
        start = [mpiexec, "-n", str(n)] if n else []
        return subprocess.run(
            [*start, sys.executable, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
        )

    return run
