"""Compiles the CUDA sources; the test marked gpu runs them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import chainer
import numpy as np
import pytest
from chainer import optimizers
from chainer.optimizer_hooks import GradientClipping, WeightDecay

import chainer_revive
from chainer_mmix.mixing import mixup_accuracy, mixup_softmax_cross_entropy
from chainer_mmix.training import SGD
from chainer_revive.cuda import kernels
from chainer_revive.cuda.tensor import Tensor


@pytest.mark.parametrize("rule", kernels.RULES)
def test_the_rules_compile(rule, nvrtc):
    nvrtc(kernels.update_source(rule), "mmix_update", raw=True)


@pytest.mark.parametrize(
    "source, name",
    [
        (kernels.CLIP, "mmix_squares"),
        (kernels.CLIP, "mmix_clip"),
        (kernels.FINITE, "mmix_finite"),
    ],
)
def test_clipping_and_the_check_compile(source, name, nvrtc):
    nvrtc(source, name, raw=True)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("label", ["int32", "int64"])
@pytest.mark.parametrize("name", ["cross_entropy", "accuracy"])
def test_losses_and_accuracies_compile(name, dtype, label, nvrtc):
    source = kernels.labels_source(dtype, label)
    nvrtc(source, f"mmix_{name}_{dtype}_{label}", raw=True)


def test_pieces_cover_each_element_once():
    pytest.importorskip("cupy")
    from chainer_revive.cuda.launcher import pieces_of

    n = kernels.PIECE
    assert pieces_of([1, 0, 2 * n, 2 * n + 1]).tolist() == [
        *([0, 0], [2, 0], [2, 1], [3, 0], [3, 1], [3, 2])
    ]


def test_each_source_is_compiled_by_one_thread_at_a_time(monkeypatch):
    """The second one then finds it among what CuPy keeps."""
    pytest.importorskip("cupy")
    from chainer_revive.cuda import launcher

    both_sources = threading.Barrier(2, timeout=20)
    compiling, seen = [], []

    class RawKernel:
        def __init__(self, source, name):
            self.source, self.name = source, name

        def compile(self):
            compiling.append(self.source)
            seen.append(compiling.count(self.source))
            if self.name == "first":
                both_sources.wait()  # different ones do not wait for each other
            time.sleep(0.05)
            compiling.remove(self.source)

    monkeypatch.setattr(launcher.cupy, "RawKernel", RawKernel)
    calls = [(s, n) for n in ("first", "second", "third") for s in ("a", "b")]
    try:
        with ThreadPoolExecutor(len(calls)) as pool:
            kernels = list(pool.map(lambda call: launcher.compiled(*call), calls))
    finally:
        launcher.compiled.cache_clear()
    assert [(k.source, k.name) for k in kernels] == calls
    assert seen == [1] * len(calls)


class Array:
    """An array on a GPU, as far as its address is concerned."""

    def __init__(self, address, size, dtype="f"):
        self.size, self.dtype = size, np.dtype(dtype)
        self.data = type("Memory", (), {"ptr": address})


def test_the_table_has_what_the_kernels_read():
    pytest.importorskip("cupy")
    from chainer_revive.cuda.launcher import table

    tensor = Tensor(
        *(Array(8, 5), Array(16, 5, "e"), (Array(24, 5), Array(32, 5)), Array(40, 5)),
        *(0.1, 0.2, 8.0, (1, 2, 3, 4, 5, 6)),
    )
    sgd = Tensor(Array(48, 7), Array(56, 7), (Array(64, 7),), rates=(0.5, 0.25))
    words = table([tensor, sgd]).view(np.int64).reshape(2, -1)
    assert words[:, :6].tolist() == [[8, 16, 24, 32, 40, 5], [48, 56, 64, 0, 0, 7]]
    assert words[:, 6:].view(np.int32)[:, 0].tolist() == [1, 0]
    floats = words[:, 6:].view(np.float32)[:, 1:]
    np.testing.assert_array_equal(
        floats,
        np.float32([[0.1, 0.2, 8, 1, 2, 3, 4, 5, 6], [0, 0, 1, 0.5, 0.25, 0, 0, 0, 0]]),
    )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["f", "e"])
@pytest.mark.parametrize(
    "make",
    [
        *(optimizers.MomentumSGD, optimizers.NesterovAG, optimizers.Adam),
        *(optimizers.AdamW, SGD, partial(SGD, weight_decay=0.1, nesterov=True)),
    ],
)
def test_on_a_gpu(make, dtype):
    def train():
        random = np.random.RandomState(0)
        model = chainer.Chain()
        with model.init_scope():
            for name, shape in (("a", (300, 41)), ("b", ()), ("c", (20000,))):
                array = np.asarray(random.standard_normal(shape), dtype)
                setattr(model, name, chainer.Parameter(array))
        model.to_device("@cupy:0")
        optimizer = make().setup(model)
        if dtype == "e":
            optimizer.use_fp32_update()
        optimizer.loss_scaling()
        optimizer.add_hook(WeightDecay(0.01))
        optimizer.add_hook(GradientClipping(1.0))
        for _ in range(3):
            for param in model.params():
                grad = random.standard_normal(param.shape).astype(dtype)
                param.grad = param.device.send(grad)
                param._loss_scale = optimizer._loss_scale
            optimizer.update()
        return [p.array.get() for p in model.params()]

    wanted = train()
    chainer_revive.use(cuda=True)
    try:
        actual = train()
    finally:
        chainer_revive.use(cuda=False)
    tolerance = 1e-5 if dtype == "f" else 1e-2
    for a, b in zip(actual, wanted, strict=True):
        np.testing.assert_allclose(a, b, tolerance, tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("dtype", ["f", "e"])
@pytest.mark.parametrize("shape", [(128, 10), (33, 1000)])
def test_losses_and_accuracies_on_a_gpu(shape, dtype, each):
    random = np.random.RandomState(0)
    x = random.standard_normal(shape).astype(dtype)
    a, b = random.randint(-1, shape[1], (2, shape[0])).astype("i")
    lam = random.random_sample(shape[0]) if each else 0.3
    results = []
    chainer_revive.use(cuda=True)
    try:
        for device in map(chainer.get_device, ("@numpy", "@cupy:0")):
            v = chainer.Variable(device.send(x))
            targets = device.send((a, b))
            loss = mixup_softmax_cross_entropy(v, *targets, lam, label_smoothing=0.1)
            loss.backward(loss_scale=1024)
            accuracy = mixup_accuracy(v, *targets, lam, ignore_label=-1)
            arrays = loss.array, v.grad, accuracy.array
            results.append(chainer.get_device("@numpy").send(arrays))
    finally:
        chainer_revive.use(cuda=False)
    tolerance = 1e-5 if dtype == "f" else 1e-2
    for host, gpu in zip(*results, strict=True):
        assert host.dtype == gpu.dtype
        np.testing.assert_allclose(host, gpu, tolerance, tolerance)
