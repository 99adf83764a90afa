"""Each function with a fault planted in it, on a GPU whose arrays are NumPy's."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from faults import plant, wrong
from numpy_executor import convolving_in_tf32
from numpy_gpu import NumpyGpu

import chainer_revive
from chainer_revive import registry
from chainer_revive.cudnn import batch_normalization
from chainer_revive.gpu_check import run
from chainer_revive.gpu_check.case import Case, Unit
from chainer_revive.gpu_check.verdict import passes
from chainer_revive.switches import use_what_the_environment_asks_for

UNITS = {unit.name: unit for unit in run.units()}
FUNCTIONS = [
    name
    for name in UNITS
    if name.startswith(("cudnn/", "capture/", "cuda/cross"))
    and name != "cudnn/batch_normalization:choose"
]


@pytest.fixture
def chainers_own():
    chainer_revive.use(cpu="chainer")
    yield
    use_what_the_environment_asks_for()


def failing(gpu):
    """The functions that do not pass, and the results of all."""
    results = {name: run.check(unit, gpu) for name, unit in UNITS.items()}
    return {n for n, found in results.items() if not all(map(passes, found))}, results


def test_all_pass_with_room_to_spare():
    names, results = failing(NumpyGpu())
    assert not names
    for found in results.values():
        for result in found:
            assert result["error"] is None
            assert result["ours"] < result["allowed"] / 10, result


def test_every_function_of_the_registry_is_checked():
    in_table = {
        registry.named(target, layer)
        for target, layers in registry.TABLE.items()
        for layer in layers
        if layer != "cpu"
    }
    assert in_table == {n for n in UNITS if not n.startswith("cuda/cross_entropy")}


def test_what_is_compiled_ahead_is_what_the_check_calls():
    gpu, checked = NumpyGpu(), NumpyGpu()
    run.compile_ahead(UNITS.values(), gpu)
    failing(checked)
    assert set(gpu.executor.operations) == set(checked.executor.operations)
    assert set(gpu.launcher.calls) == set(checked.launcher.calls)
    assert registry.left_off() == []


def test_nothing_is_captured_beside_other_threads():
    seen = []

    def compute():
        seen.append([registry.is_left_off(name) for name in ("graphs", "mix")])
        raise ValueError("left for the check to see")

    gpu = NumpyGpu()
    gpu.names |= {"graphs", "mix"}
    case = Case("", (), compute)
    graphs = Unit("graphs", "", lambda: [case], None, captures=True)
    run.compile_ahead([graphs, Unit("mix", "", lambda: [case], None)], gpu)
    assert seen == [[True, False]] * 4  # both, in two precisions


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_fault_is_found_in_its_function_only(name, monkeypatch):
    plant(name, wrong, monkeypatch.setattr)
    names, _ = failing(NumpyGpu())
    assert names == {name}


@pytest.mark.parametrize("output", range(7))
def test_a_fault_of_batch_normalisation_is_found(output, monkeypatch):
    impl = batch_normalization.CudnnBatchNormalizationImpl
    method = "forward" if output < 4 else "backward"
    original = getattr(impl, method)

    def damaged(self, *args, **kwargs):
        result = list(original(self, *args, **kwargs))
        index = {0: 0, 1: 2, 2: 3, 3: 4, 4: 0, 5: 2, 6: 3}[output]
        result[index][...] = wrong(result[index])
        return tuple(result)

    monkeypatch.setattr(impl, method, damaged)
    names, _ = failing(NumpyGpu())
    assert names == {"cudnn/batch_normalization:choose"}


@pytest.mark.parametrize(
    "rule", ["MomentumSGDRule", "NesterovAGRule", "AdamRule", "clip"]
)
def test_a_fault_of_an_optimizer_is_found(rule, monkeypatch):
    gpu = NumpyGpu()
    original = getattr(gpu.launcher, rule)

    def damaged(first, *args):
        result = original(first, *args)
        if rule == "clip":
            return result * np.float32(0.9)
        first[...] = wrong(first)
        return result

    monkeypatch.setattr(gpu.launcher, rule, damaged)
    names, results = failing(gpu)
    assert names == {"cuda/optimizers:update"}
    bad = {r["case"] for r in results["cuda/optimizers:update"] if not passes(r)}
    assert rule == "clip" or all(case[:4] in rule for case in bad)


def test_a_gradient_that_is_taken_for_finite_is_found(monkeypatch):
    gpu = NumpyGpu()
    monkeypatch.setattr(gpu.launcher, "finite", lambda arrays: np.ones(len(arrays)))
    names, _ = failing(gpu)
    assert names == {"cuda/optimizers:check_nan_in_grads"}


@pytest.mark.parametrize("kind", ["convolution", "convolution by x"])
def test_memory_that_is_not_written_is_found(kind):
    """What cuDNN leaves out is not what was there before by luck."""
    gpu = NumpyGpu()
    prepare = gpu.executor.prepare

    def leaving_out(operation):
        run = prepare(operation)
        if operation.kind != kind:
            return run

        def call(inputs, outputs):
            kept = outputs[0][-1].copy()
            run(inputs, outputs)
            outputs[0][-1] = kept

        return call

    gpu.executor.prepare = leaving_out
    names, results = failing(gpu)
    name = {"convolution": "forward", "convolution by x": "transposed"}[kind]
    assert names == {f"cudnn/convolution:{name}"}
    errors = {r["error"] for r in results[f"cudnn/convolution:{name}"]}
    assert errors == {"NaN or infinity"}


def test_tf32_where_strict_float32_is_asked_for_is_found():
    with convolving_in_tf32():
        names, results = failing(NumpyGpu())
    convolutions = {name for name in UNITS if "/convolution" in name}
    assert names == convolutions
    for name in names:
        for result in results[name]:
            assert passes(result) == (result["precision"] != "float32")


def test_what_cudnn_refuses_passes_as_chainers_own():
    gpu = NumpyGpu()
    gpu.executor.refuses = lambda operation: True
    names, _ = failing(gpu)
    assert not names


def test_an_error_leaves_off_its_function_only(monkeypatch):
    def fail(*args):
        raise ValueError("cuDNN error: BAD_PARAM")

    monkeypatch.setattr("chainer_revive.cudnn.convolution.gradient_w", fail)
    names, results = failing(NumpyGpu())
    assert names == {"cudnn/convolution:gradient_w"}
    result = results["cudnn/convolution:gradient_w"][0]
    assert result["error"] == "ValueError: cuDNN error: BAD_PARAM"
    assert result["ours"] is None


def test_an_error_of_the_card_ends_the_check(monkeypatch):
    class CUDARuntimeError(RuntimeError):
        pass

    def fail(*args):
        raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access")

    monkeypatch.setattr("chainer_revive.cudnn.convolution.gradient_w", fail)
    with pytest.raises(CUDARuntimeError):
        failing(NumpyGpu())


@pytest.mark.parametrize("name", [n for n in UNITS if "/cross" not in n])
def test_on_a_gpu_one_function_is_used_at_a_time(name, chainers_own):
    pytest.importorskip("cupy")
    gpu = object.__new__(run.Gpu)
    gpu.names = set(UNITS)
    before = {t: getattr(*registry.owner_of(t)) for t in registry.TABLE}
    wanted = {
        target
        for target, layers in registry.TABLE.items()
        if name in {registry.named(target, layer) for layer in layers}
    }
    with gpu.using([UNITS[name]]):
        changed = {
            t for t in registry.TABLE if getattr(*registry.owner_of(t)) is not before[t]
        }
        assert changed == wanted and wanted
    assert before == {t: getattr(*registry.owner_of(t)) for t in registry.TABLE}
    assert registry.left_off() == []


def test_on_a_gpu_memory_is_full_of_nan():
    filled = []

    class Memory:
        def memset_async(self, value, size):
            filled.append((np.full(size, value, np.uint8).view("f"), size))

    def using_allocator(malloc):
        assert isinstance(malloc(8), Memory) and isinstance(malloc(0), Memory)
        return nullcontext()

    pool = SimpleNamespace(malloc=lambda size: Memory())
    cuda = SimpleNamespace(MemoryPool=lambda: pool, using_allocator=using_allocator)
    gpu = object.__new__(run.Gpu)
    gpu.xp = SimpleNamespace(cuda=cuda)
    with gpu.poisoned():
        ((values, size),) = filled
    assert size == 8 and np.isnan(values).all()
