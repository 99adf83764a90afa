"""Runs the CUDA sources themselves, compiled as C++, on a CPU."""

import ctypes
import hashlib
import pathlib
import shutil
import subprocess

import chainer
import numpy as np
import pytest

from chainer_mmix.mixing import mixup_accuracy, mixup_softmax_cross_entropy
from chainer_mmix.mixing.weights import DeviceWeights
from chainer_revive.cuda import cross_entropy, current, kernels, linear
from chainer_revive.cuda.tensor import Tensor

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
    "SGDRule": ((0.1, 0.8, 0.02, 1), 1),
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


@pytest.fixture
def in_one_block(run, monkeypatch):
    """Losses and accuracies go through the CUDA source; returns the kernels' names."""
    names = []

    class Launcher:
        array_type = np.ndarray

        def one_block(self, source, name, block, *args):
            names.append(name)
            run(source, name, (1, 1), block, *args)

    monkeypatch.setattr(current, "launcher", Launcher())
    return names


def batch(n, n_class, dtype, label, ignore_label=-1):
    random = np.random.RandomState(0)
    x = 3 * random.standard_normal((n, n_class)).astype(dtype)
    a, b = random.randint(0, n_class, (2, n)).astype(label)
    a[1::3], b[2::5] = ignore_label, ignore_label
    return x, a, b, random.random_sample(n)


def reference(x, targets, weights, ignore_label, normalize, label_smoothing):
    """The loss, its gradient and the accuracy, in float64."""
    x = x.astype("d")
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    loss = gradient = accuracy = 0
    for t, weight in zip(targets, weights, strict=True):
        valid = t != ignore_label
        target = np.eye(x.shape[1])[np.where(valid, t, 0)]
        target = (1 - label_smoothing) * target + label_smoothing / x.shape[1]
        share = (weight * valid / (valid.sum() if normalize else len(t)))[:, None]
        loss -= (share * target * log_p).sum()
        gradient += share * (np.exp(log_p) - target)
        accuracy += (weight * valid * (x.argmax(1) == t)).sum() / valid.sum()
    return loss, gradient, accuracy


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("dtype, label", [("float32", "int32"), ("float16", "int64")])
@pytest.mark.parametrize(
    "n, n_class, options",
    [
        (3, 2, (-1, True, 0.0)),
        (kernels.WARPS + 1, 33, (5, True, 0.1)),
        (2 * kernels.WARPS, 70, (-1, False, 0.0)),
    ],
)
def test_cross_entropy_and_accuracy(
    n, n_class, options, dtype, label, each, in_one_block
):
    x, a, b, lam = batch(n, n_class, dtype, label, options[0])
    lam = lam if each else 0.3
    mixed = (a, b), (lam, 1 - lam)
    loss, gradient = cross_entropy.cross_entropy(x, *mixed, *options)
    accuracy = cross_entropy.accuracy(x, *mixed, options[0])
    wanted = reference(x, *mixed, *options)
    assert loss.dtype == accuracy.dtype == dtype and gradient.dtype == "float32"
    tolerance = 1e-3 if dtype == "float16" else 1e-5
    np.testing.assert_allclose(loss, wanted[0], tolerance)
    np.testing.assert_allclose(gradient, wanted[1], 1e-4, 1e-6)
    np.testing.assert_allclose(accuracy, wanted[2], tolerance)
    assert in_one_block == [
        f"mmix_{name}_{dtype}_{label}" for name in ("cross_entropy", "accuracy")
    ]


def test_static_weights_in_half_precision(in_one_block):
    x, a, b, lam = batch(5, 3, "float16", "int32")
    perm = np.arange(5)[::-1]
    static = DeviceWeights(5, chainer.get_device("@numpy"))
    static.fill(lam, perm)
    results = []
    for weights in (lam, static):
        v = chainer.Variable(x)
        loss = mixup_softmax_cross_entropy(v, a, b, weights)
        loss.grad = np.array(1024, "float16")
        loss.backward()
        accuracy = mixup_accuracy(v, a, b, weights, ignore_label=-1)
        results.append((loss.array, v.grad, accuracy.array))
    assert len(in_one_block) == 4
    wanted = reference(x, (a, b), (lam, 1 - lam), -1, True, 0)
    for own, again, right, scale in zip(*results, wanted, (1, 1024, 1), strict=True):
        np.testing.assert_array_equal(own, again)
        assert own.dtype == "float16"
        np.testing.assert_allclose(own, scale * right, 1e-3, 1e-3)


def test_one_target_and_ties(in_one_block):
    y = np.zeros((4, 40), "float32")
    y[1, 35], y[2, 3:] = np.nan, np.nan
    t = np.array([0, 35, 3, 39], "int32")
    assert cross_entropy.accuracy(y, (t,), (1.0,)) == 0.75
    none = np.full(4, -1, "int32")
    assert cross_entropy.accuracy(y, (none,), (1.0,), -1) == 0


def test_what_is_not_finite_or_out_of_range(in_one_block):
    x, t = np.zeros((3, 4), "float32"), np.array([0, 1, 2], "int32")
    weights = 0.3, 0.7
    for label in (-2, 4, 1 << 30):
        bad = np.array([0, 1, label], "int32")
        for targets in ((bad, t), (t, bad)):
            loss, _ = cross_entropy.cross_entropy(x, targets, weights, -1, True)
            assert np.isnan(loss)
    with chainer.using_config("debug", True):
        v = x.astype("float16")
        with pytest.raises(ValueError, match="found 4"):
            mixup_softmax_cross_entropy(v, t, np.array([0, 1, 4], "int32"), 0.3)
    x[1, 2] = np.nan
    loss, gradient = cross_entropy.cross_entropy(x, (t, t), weights, 1, True)
    assert np.isnan(loss) and np.isnan(gradient[1]).all()
    assert np.isfinite(gradient[[0, 2]]).all()
