"""Runs the CUDA sources themselves, compiled as C++, on a CPU."""

import ctypes
import hashlib
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from chainer_mmix.backends.cuda import kernels, linear
from chainer_mmix.backends.cuda.optimizers import Tensor

HERE = pathlib.Path(__file__).parent / "emulation"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("g++"), reason="needs g++"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """``run(source, name, grid, block, *args)`` runs a kernel on NumPy arrays."""
    folder = tmp_path_factory.mktemp("emulated")

    def built(source, name):
        stem = hashlib.sha256(f"{source}{name}".encode()).hexdigest()
        library = folder / f"{stem}.so"
        if not library.exists():
            code = folder / f"{stem}.cpp"
            code.write_text(f"""{source}
extern "C" void run(Dim grid, Dim block, void** args) {{
    launch({name}, grid, block, args);
}}""")
            options = ["-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", f"-I{HERE}"]
            subprocess.run(["g++", *options, code, "-o", library], check=True)
        return ctypes.CDLL(library).run

    class Dim(ctypes.Structure):
        _fields_ = (("x", ctypes.c_uint), ("y", ctypes.c_uint))

    def run(source, name, grid, block, *args):
        values = [
            np.uintp(a.ctypes.data if a.size else 0) if isinstance(a, np.ndarray) else a
            for a in args
        ]
        cells = [np.array(value) for value in values]
        addresses = (ctypes.c_void_p * len(cells))(*(c.ctypes.data for c in cells))
        built(source, name)(Dim(*grid), Dim(*block), addresses)

    return run


def table(tensors):
    def address(array):
        return 0 if array is None else array.ctypes.data

    rows = np.zeros(len(tensors), kernels.TENSOR)
    for row, t in zip(rows, tensors, strict=True):
        states = [*map(address, t.states), 0, 0][:2]
        rates = [*t.rates, *[0] * 6][:6]
        row["param"], row["grad"] = address(t.param), address(t.grad)
        row["s0"], row["s1"] = states
        row["half"], row["size"] = address(t.half), t.grad.size
        row["is_half"] = t.grad.dtype == np.float16
        row["before"], row["after"] = t.before, t.after
        row["loss_scale"], row["rates"] = t.loss_scale, rates
    return rows


def pieces_of(tensors):
    return np.array(
        [
            (i, number)
            for i, t in enumerate(tensors)
            for number in range(-(-t.grad.size // kernels.PIECE))
        ],
        np.int32,
    )


def make_tensors(rates, n_state):
    random = np.random.RandomState(0)
    tensors = []
    for size, dtype in ((3, "f"), (kernels.PIECE + 5, "f"), (700, "e")):
        param = random.standard_normal(size).astype("f")
        tensors.append(
            Tensor(
                param,
                random.standard_normal(size).astype(dtype),
                tuple(random.random_sample((n_state, size)).astype("f")),
                param.astype("e") if dtype == "e" else None,
                *(0.3, 0.2, 8.0),
                rates,
            )
        )
    return tensors


RATES = {
    "MomentumSGDRule": ((0.1, 0.8), 1),
    "NesterovAGRule": ((0.1, 0.8), 1),
    "AdamRule": ((0.01, 0.1, 0.01, 1e-3, 0.5, 0.02), 2),
}


@pytest.mark.parametrize("clip", [None, 0.25])
@pytest.mark.parametrize("rule", RATES)
def test_a_step(rule, clip, run, numpy_launcher):
    ours, wanted = make_tensors(*RATES[rule]), make_tensors(*RATES[rule])
    pieces = pieces_of(ours)
    pointer = np.empty(0) if clip is None else np.array(clip, "f")
    run(
        *(kernels.update_source(rule), "mmix_update"),
        *((len(pieces), 1), (kernels.THREADS, 1)),
        *(table(ours), pieces, pointer),
    )
    numpy_launcher.update(rule, wanted, clip)
    for own, other in zip(ours, wanted, strict=True):
        arrays = (own.param, *own.states), (other.param, *other.states)
        for a, b in zip(*arrays, strict=True):
            np.testing.assert_allclose(a, b, 1e-5, 1e-6)
    np.testing.assert_array_equal(ours[2].half, ours[2].param.astype("e"))


@pytest.mark.parametrize("threshold", [0.5, 1e6])
def test_clipping(threshold, run, numpy_launcher):
    tensors = make_tensors((), 0)
    pieces = pieces_of(tensors)
    squares, clip = np.empty(len(pieces)), np.empty((), "f")
    block = kernels.THREADS, 1
    grid = len(pieces), 1
    args = table(tensors), pieces, squares
    run(kernels.CLIP, "mmix_squares", grid, block, *args)
    args = squares, np.int32(len(pieces)), np.float32(threshold), clip
    run(kernels.CLIP, "mmix_clip", (1, 1), block, *args)
    np.testing.assert_allclose(clip, numpy_launcher.clip(tensors, threshold), 1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_finite(bad, run):
    tensors = make_tensors((), 0)
    tensors[1].grad[-1] = tensors[2].grad[300] = bad
    pieces, is_bad = pieces_of(tensors), np.zeros(3, np.int32)
    run(
        *(kernels.FINITE, "mmix_finite", (len(pieces), 1), (kernels.THREADS, 1)),
        *(table(tensors), pieces, is_bad),
    )
    assert is_bad.tolist() == [0, 1, 1]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (17, 3, 40), (4, 33, 16)])
def test_matmul(shape, dtype, run):
    rows, columns, depth = shape
    random = np.random.RandomState(0)
    a = random.standard_normal((rows, depth)).astype(dtype)
    b = random.standard_normal((columns, depth)).astype(dtype).T
    c = np.empty((rows, columns), dtype)
    tile = linear.TILE
    strides = [np.int64(s // m.itemsize) for m in (a, b) for s in m.strides]
    run(
        *(linear.SOURCE, f"mmix_matmul_{dtype}"),
        *((-(-columns // tile), -(-rows // tile)), (tile, tile)),
        *(a, b, c, *map(np.int32, shape), *strides),
    )
    tolerance = 1e-2 if dtype == "float16" else 1e-5
    np.testing.assert_allclose(c, a.astype("d") @ b.astype("d"), tolerance, tolerance)
