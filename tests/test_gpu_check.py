"""The check of mixing and of CUDA graphs, on a GPU whose arrays are NumPy's."""

import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest
from chainer.backends import cuda

sys.path.append(str(Path(__file__).parent / "chainer_revive" / "doubles"))

from faults import wrong
from numpy_gpu import NumpyGpu

from chainer_mmix import gpu_check
from chainer_mmix.mixing import functions
from chainer_revive import registry
from chainer_revive.gpu_check import modules, run
from chainer_revive.gpu_check.verdict import passes


class Graphs:
    """To replay computes again, with all results in the arrays of the first time."""

    def stream(self):
        return contextlib.nullcontext()

    def capture(self, function):
        first = function()

        def replay():
            second = function()
            for own, new in zip(leaves(first), leaves(second), strict=True):
                if isinstance(own, np.ndarray):
                    own[...] = new
            return first

        return replay


def leaves(computed):
    return [*computed.values.values(), *computed.grads]


def failing(monkeypatch, graphs, layers):
    monkeypatch.setattr(gpu_check, "make_graphs", lambda model: graphs)
    monkeypatch.setattr(gpu_check, "usable_layers", lambda: layers)
    gpu = NumpyGpu(["chainer_mmix.gpu_check"])
    mix, graph = gpu_check.UNITS
    found = {
        "mix": run.check(mix, gpu),
        "graphs": run.check(graph, gpu, [*run.units(), mix]),
    }
    return {n for n, results in found.items() if not all(map(passes, results))}, found


def test_this_package_is_checked():
    assert "chainer_mmix.gpu_check" in modules


@pytest.mark.parametrize("layers", [{"cuda"}, {"cuda", "cudnn"}])
def test_both_pass(monkeypatch, layers):
    names, found = failing(monkeypatch, Graphs(), layers)
    assert not names
    for results in found.values():
        for result in results:
            assert result["ours"] < result["allowed"] / 10, result


def test_a_graph_that_replays_the_first_step_is_found(monkeypatch):
    class Stuck(Graphs):
        def capture(self, function):
            first = function()
            return lambda: first

    names, _ = failing(monkeypatch, Stuck(), {"cuda", "cudnn"})
    assert names == {"graphs"}


def test_what_cannot_be_captured_is_told(monkeypatch):
    class Refusing(Graphs):
        def capture(self, function):
            raise RuntimeError("cuBLAS during capture")

    names, found = failing(monkeypatch, Refusing(), {"cuda"})
    assert names == {"graphs"}
    assert "cuBLAS during capture" in found["graphs"][0]["error"]


def test_mixing_that_is_wrong_is_found(monkeypatch):
    forward = functions.Mix.forward_cpu

    def damaged(self, inputs):
        y = forward(self, inputs)
        return y if inputs[0].dtype == np.float64 else (wrong(y[0]),)

    monkeypatch.setattr(functions.Mix, "forward_cpu", damaged)
    names, _ = failing(monkeypatch, Graphs(), {"cuda"})
    assert "mix" in names


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
