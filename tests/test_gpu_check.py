"""The check of mixing and of CUDA graphs, on a GPU whose arrays are NumPy's."""

import contextlib
import random
import sys
from pathlib import Path

import chainer
import numpy as np
import pytest
from chainer import backend
from chainer.backends import cuda

sys.path.append(str(Path(__file__).parent / "chainer_revive" / "doubles"))

from faults import wrong
from numpy_executor import convolving_in_tf32
from numpy_gpu import NumpyGpu
from numpy_launcher import NumpyLauncher

from chainer_mmix import gpu_check
from chainer_mmix.datasets import Augment, augment_batch
from chainer_mmix.mixing import functions
from chainer_mmix.training import sgd
from chainer_mmix.training.sgd import SGDRule
from chainer_revive import registry
from chainer_revive.cpu.adapters.optimizers import KINDS
from chainer_revive.cuda import current
from chainer_revive.gpu_check import modules, run
from chainer_revive.gpu_check.verdict import passes


class Graphs:
    """To replay computes again, with all results in the arrays of the first time."""

    keeps_arrays = True

    def setting(self, function=None):
        return ()

    def stream(self):
        return contextlib.nullcontext()

    def free(self):
        pass

    def capture(self, function, inputs):
        first = function()

        def replay():
            second = function()
            for own, new in zip(leaves(first), leaves(second), strict=True):
                if isinstance(own, np.ndarray):
                    own[...] = new
            return first

        return replay


def leaves(computed):
    return [*[value for _, value in computed.values.values()], *computed.grads]


def failing(monkeypatch, graphs, layers):
    monkeypatch.setattr(gpu_check, "make_graphs", lambda model: graphs)
    monkeypatch.setattr(gpu_check, "usable_layers", lambda: layers)
    gpu = NumpyGpu(["chainer_mmix.gpu_check"])
    found, others = {}, [*run.units()]
    for unit in gpu_check.UNITS:
        found[unit.name] = run.check(unit, gpu, others)
        if all(map(passes, found[unit.name])):
            others.append(unit)
    return {n for n, results in found.items() if not all(map(passes, results))}, found


def test_this_package_is_checked():
    assert "chainer_mmix.gpu_check" in modules


@pytest.mark.parametrize("layers", [{"cuda"}, {"cuda", "cudnn"}])
def test_all_pass(monkeypatch, layers):
    names, found = failing(monkeypatch, Graphs(), layers)
    assert not names
    for results in found.values():
        for result in results:
            assert result["ours"] < result["allowed"] / 10, result


def test_the_steps_of_a_graph_stay_close_in_tf32(monkeypatch):
    """They would not if small deviations grew from step to step."""
    with convolving_in_tf32():
        _, found = failing(monkeypatch, Graphs(), {"cuda", "cudnn"})
    (result,) = found["graphs"]
    assert 1e-6 < result["ours"] < result["allowed"] / 10


def test_a_graph_that_replays_the_first_step_is_found(monkeypatch):
    class Stuck(Graphs):
        def capture(self, function, inputs):
            first = function()
            return lambda: first

    names, _ = failing(monkeypatch, Stuck(), {"cuda", "cudnn"})
    assert names == {"graphs"}


def test_what_cannot_be_captured_is_told(monkeypatch):
    class Refusing(Graphs):
        def capture(self, function, inputs):
            raise RuntimeError("cuBLAS during capture")

    names, found = failing(monkeypatch, Refusing(), {"cuda"})
    assert names == {"graphs"}
    assert "cuBLAS during capture" in found["graphs"][0]["error"]


def test_mixing_that_is_wrong_is_found(monkeypatch):
    forward = functions.Mix.forward_cpu

    def damaged(self, inputs):
        y = forward(self, inputs)
        if inputs[0].dtype == np.float64 or registry.is_left_off("mix"):
            return y
        return (wrong(y[0]),)

    monkeypatch.setattr(functions.Mix, "forward_cpu", damaged)
    # Graphs are then of plain mixing.
    assert failing(monkeypatch, Graphs(), {"cuda"})[0] == {"mix"}


def test_augmentation_that_is_wrong_is_found(monkeypatch):
    original = gpu_check.augment_batch

    def damaged(images, table, dtype):
        y = original(images, table, dtype)
        return y if dtype == np.float64 else wrong(y)

    monkeypatch.setattr(gpu_check, "augment_batch", damaged)
    assert failing(monkeypatch, Graphs(), {"cuda"})[0] == {"augment"}


def test_a_step_of_sgd_that_is_wrong_is_found(monkeypatch):
    original = NumpyLauncher.SGDRule

    def damaged(self, param, *args):
        original(self, param, *args)
        param[...] = wrong(param)

    monkeypatch.setattr(NumpyLauncher, "SGDRule", damaged)
    names, _ = failing(monkeypatch, Graphs(), {"cuda"})
    assert names == {"cuda/optimizers:SGDRule"}


def test_a_parameters_step_that_is_wrong_is_found(monkeypatch):
    original = SGDRule.update_core_cpu

    def damaged(self, param):
        original(self, param)
        if param.dtype != np.float64:
            param.data[...] = wrong(param.data)

    monkeypatch.setattr(SGDRule, "update_core_cpu", damaged)
    assert failing(monkeypatch, Graphs(), {"cuda"})[0] == {"sgd"}


def test_what_is_left_off_of_sgd_is_computed_plainly(monkeypatch):
    """One after the other: all parameters, one parameter, NumPy's own functions."""
    used, launcher = [], NumpyLauncher()

    def kernel(grad, lr, momentum, decay, nesterov, param, v):
        used.append("kernel")
        v[...] = momentum * v + grad + decay * param
        param -= lr * v

    monkeypatch.setattr(sgd, "sgd_kernel", lambda: kernel)
    monkeypatch.setattr(SGDRule, "update_core_cpu", SGDRule.update_core_gpu)
    monkeypatch.delitem(KINDS, SGDRule)  # The loop over all parameters is for a CPU.
    results = []
    current.use(launcher)
    try:
        for names in (
            (),
            ["cuda/optimizers:SGDRule"],
            ["cuda/optimizers:SGDRule", "sgd"],
        ):
            registry.leave_off(names)
            model = chainer.links.Linear(3, 2, initialW=0.5)
            optimizer = sgd.SGD(0.1, weight_decay=0.1).setup(model)
            for param in model.params():
                param.grad = np.ones_like(param.array)
            optimizer.update()
            results.append(model.W.array)
    finally:
        registry.leave_off(())
        current.use(None)
    assert launcher.calls == ["update"] and used == ["kernel"] * 2
    np.testing.assert_allclose(results, np.full((3, 2, 3), 0.395), 1e-6)


def test_augmentation_that_is_left_off_is_computed_plainly(monkeypatch):
    kernels = []

    class Cupy:
        def __getattr__(self, name):
            return getattr(np, name)

    monkeypatch.setattr(backend, "get_array_module", lambda *arrays: Cupy())
    monkeypatch.setattr(
        cuda, "elementwise", lambda *a, **k: lambda *arrays: kernels.append(arrays)
    )
    images = np.random.RandomState(0).uniform(size=(4, 3, 6, 5)).astype("f")
    augment = Augment(2, flip=True)
    draws = [augment.draw((3, 6, 5), random.Random(i)) for i in range(3)]
    table = augment_batch.make_table([3, 0, 3], draws, 2, (6, 5))
    expected = augment.apply(images[[3, 0, 3]], draws)
    augment_batch.augment_batch(images, table, np.dtype("f"))
    assert len(kernels) == 1
    registry.leave_off(["augment"])
    try:
        y = augment_batch.augment_batch(images, table, np.dtype("f"))
    finally:
        registry.leave_off(())
    assert len(kernels) == 1
    np.testing.assert_array_equal(y, expected)


def test_mixing_may_be_the_first_that_runs_on_a_gpu(monkeypatch):
    """What the check finds then holds for it as well."""
    monkeypatch.setattr(functions.kernels, "mix", None)
    monkeypatch.setattr(cuda, "to_gpu", np.asarray)

    def decide():
        registry.leave_off(["mix"])

    registry.wait(registry.Waiting(frozenset(["cudnn"]), lambda _: False, decide))
    try:
        x, perm = np.float32([[1], [2]]), np.array([1, 0])
        node = functions.Mix(functions.Weights.of(0.75, 2), perm)
        (y,) = node.forward_gpu((x,))
    finally:
        registry.wait(None)
        registry.leave_off(())
    np.testing.assert_array_equal(y, [[1.25], [1.75]])


@pytest.mark.parametrize("each", [False, True])
def test_mixing_by_plain_functions(each):
    from chainer_mmix.mixing.kernels import mix_plainly

    random = np.random.RandomState(0)
    x, perm = random.standard_normal((5, 3, 2)).astype("e"), random.permutation(5)
    a = random.uniform(size=5 if each else None)
    a, b = np.asarray(a, "f")[()], np.asarray(1 - a, "f")[()]
    column = (5, 1, 1) if each else ()
    wanted = np.reshape(a, column) * x.astype("d")
    wanted += np.reshape(b, column) * x[perm].astype("d")
    y = mix_plainly(x, a, b, perm)
    assert y.dtype == "e"
    np.testing.assert_allclose(y, wanted, 2e-3, 2e-3)
