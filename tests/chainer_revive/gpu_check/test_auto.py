"""From the first call on a GPU to what runs there, with NumPy in place of the GPU."""

import json
import subprocess
import sys
import threading
import time
import warnings
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import chainer
import chainer.functions as F
import child
import numpy as np
import pytest
from chainer.backends import cuda
from chainer.functions.math.basic_math import Add
from numpy_executor import NumpyExecutor
from numpy_launcher import NumpyLauncher

import chainer_revive
from chainer_revive import gpu_check, registry
from chainer_revive.cuda import current
from chainer_revive.cudnn import executor
from chainer_revive.gpu_check import card, faults, run, verdict
from chainer_revive.switches import use_what_the_environment_asks_for

CARD = {"card": "NVIDIA A100", "compute capability": "8.0", "modules": []}
GRADIENT = "cudnn/convolution:gradient_w"


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine with a card; returns how often it was checked."""
    log = tmp_path / "checks"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(card, "describe", lambda modules: {**CARD, "modules": modules})
    monkeypatch.setattr(gpu_check, "modules", [])
    monkeypatch.setattr(card, "usable_layers", lambda: {"cuda", "capture", "cudnn"})
    device = SimpleNamespace(id=0)
    cupy = SimpleNamespace(cuda=SimpleNamespace(Device=lambda: device))
    monkeypatch.setattr(cuda, "cupy", cupy)
    monkeypatch.setattr(cuda, "ndarray", np.ndarray)
    monkeypatch.setattr(current, "on_cupy", NumpyLauncher)
    used = NumpyExecutor()
    monkeypatch.setattr(executor, "current", lambda: used)
    versions = import_module("chainer_revive.cudnn.versions")
    monkeypatch.setattr(versions, "versions", lambda: ("9", "1"))
    chainer_revive.use(cpu="chainer")
    yield lambda: len(log.read_text().split()) if log.exists() else 0
    registry.leave_off(())
    chainer_revive.use(cuda=False, cudnn=False)
    use_what_the_environment_asks_for()


def plant(monkeypatch, fault="nothing", function="-"):
    command = [sys.executable, child.__file__, fault, function]
    monkeypatch.setattr(verdict, "command", command)


def at_once(monkeypatch, tmp_path, **failures):
    """A check that takes no time, and finds what it is told to."""

    def check(card, device, beside):
        with open(tmp_path / "checks", "a") as file:
            file.write("checked\n")
        good = {"ours": 0.0, "allowed": 1.0, "error": None, "case": "", "precision": ""}
        names = GRADIENT, "cuda/cross_entropy:cross_entropy"
        return verdict.Verdict(
            card,
            {
                name: {"what": "a", "results": [{**good, **failures.get(name, {})}]}
                for name in names
            },
        )

    monkeypatch.setattr(verdict, "_check", check)


def decide():
    """Decides anew, as a new process would; returns the warnings."""
    registry.leave_off(())
    chainer_revive.use(cuda="auto", cudnn="auto")
    assert registry.is_waiting() and not registry.is_on("cudnn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        registry.decide()
    assert not registry.is_waiting()
    return [str(w.message) for w in caught]


def is_on():
    return registry.is_on("cuda"), registry.is_on("cudnn")


def test_all_is_on_where_all_is_right(monkeypatch, machine):
    plant(monkeypatch)
    assert decide() == []
    assert is_on() == (True, True) and registry.left_off() == []
    assert decide() == []
    assert machine() == 1  # the second time, from the disk


def test_a_fault_leaves_its_function_off(monkeypatch, machine):
    plant(monkeypatch, "wrong", GRADIENT)
    (warning,) = decide()
    assert is_on() == (True, True) and registry.left_off() == [GRADIENT]
    assert f"On NVIDIA A100, {GRADIENT}, convolution, gradient by W" in warning
    assert "deviates from float64 by 0.05" in warning and "doctor" in warning
    assert chainer_revive.state()["left_off"] == [GRADIENT]
    target = (
        "chainer.functions.connection.convolution_2d:Convolution2DGradW.forward_gpu"
    )
    assert getattr(*registry.owner_of(target)) is registry.original(target)
    # The next process warns again, without a check.
    assert decide() == [warning] and machine() == 1


def test_a_loss_that_is_wrong_is_chainers_own(monkeypatch, tmp_path):
    name = "cuda/cross_entropy:cross_entropy"
    at_once(monkeypatch, tmp_path, **{name: {"ours": 2.0}})
    decide()
    from chainer_revive.cuda import cross_entropy

    x, t = np.zeros((3, 4), "f"), np.zeros(3, "i")
    arguments = x, (t,), (1.0,), -1
    assert cross_entropy.cross_entropy(*arguments, True) is NotImplemented
    assert cross_entropy.accuracy(*arguments) is not NotImplemented


def test_a_crash_of_threads_alone_leaves_nothing_off(monkeypatch, machine):
    plant(monkeypatch, "threads")
    assert decide() == [] and machine() == 2
    assert is_on() == (True, True) and registry.left_off() == []
    assert decide() == [] and machine() == 2  # it is known


@pytest.mark.parametrize("fault", ["lost", "killed"])
def test_a_crash_leaves_everything_off(monkeypatch, machine, fault):
    plant(monkeypatch, fault, GRADIENT)
    (warning,) = decide()
    assert is_on() == (False, False)
    assert f"ended early during {GRADIENT}" in warning
    why = {"killed": "(Aborted)", "lost": "cudaErrorIllegalAddress"}[fault]
    assert why in warning
    assert set(registry.left_off()) == {unit.name for unit in run.units()}
    (y,) = Add().forward((np.float32([1]), np.float32([2])))
    assert y == 3
    # A process that died in its threads is followed by one without; then never again.
    n_check = {"killed": 2, "lost": 1}[fault]
    assert machine() == n_check
    assert decide() == [warning] and machine() == n_check


@pytest.mark.parametrize(
    "fault, why",
    [
        ("no context", "taken by another process"),
        ("full", "memory is full"),
        ("ended", "Killed"),
    ],
)
def test_what_may_be_gone_the_next_time_is_asked_again(
    monkeypatch, tmp_path, fault, why
):
    plant(monkeypatch, fault, GRADIENT)
    (warning,) = decide()
    assert is_on() == (False, False) and why in warning
    at_once(monkeypatch, tmp_path)
    assert decide() == [] and is_on() == (True, True)


@pytest.mark.slow
def test_a_check_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(verdict, "_SECONDS", 8)
    plant(monkeypatch, "hangs", "cudnn/convolution:forward")
    started = time.monotonic()
    (warning,) = decide()
    assert time.monotonic() - started < 40
    assert "no end after 8 seconds" in warning and is_on() == (False, False)


def test_the_first_call_decides_and_is_computed_by_what_was_decided(
    monkeypatch, tmp_path
):
    at_once(monkeypatch, tmp_path)
    chainer_revive.use(cuda="auto", cudnn="auto")
    a, b = (
        np.ones((2, 4, 5, 3), "f").transpose(0, 3, 1, 2) * k for k in (1, np.float32(2))
    )
    (y,) = Add().forward((a, b))
    assert is_on() == (True, True)
    np.testing.assert_array_equal(y, a + b)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous  # as cuDNN's layer leaves it


def test_calls_on_the_cpu_do_not_decide(monkeypatch, machine, tmp_path):
    at_once(monkeypatch, tmp_path)
    monkeypatch.setattr(cuda, "ndarray", type("ndarray", (), {}))
    chainer_revive.use(cuda="auto", cudnn="auto")
    model = chainer.links.Linear(3, 2)
    optimizer = chainer.optimizers.SGD().setup(model)
    optimizer.update(lambda: F.sum(model(np.ones((1, 3), "f")) + 1))
    assert registry.is_waiting() and machine() == 0 and is_on() == (False, False)


def test_threads_wait_for_one_decision(monkeypatch, machine, tmp_path):
    at_once(monkeypatch, tmp_path)
    chainer_revive.use(cuda="auto", cudnn="auto")
    x = np.ones((1, 2, 3, 3), "f")
    results = []

    def add():
        results.append((Add().forward((x, x))[0].sum(), is_on()))

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(36, (True, True))] * 3 and machine() == 1


def test_one_insists(monkeypatch, tmp_path):
    at_once(monkeypatch, tmp_path, **{GRADIENT: {"ours": 2.0}})
    decide()
    chainer_revive.use(cudnn=True)
    assert registry.left_off() == [] and registry.is_on("cudnn")


def test_zero_keeps_chainers_own(monkeypatch, machine, tmp_path):
    at_once(monkeypatch, tmp_path)
    chainer_revive.use(cuda="auto", cudnn=False)
    registry.decide()
    assert is_on() == (True, False)


@pytest.mark.parametrize("damage", ["", "{", '{"card": {}, "units": {}}', "[]", "cut"])
def test_a_damaged_verdict_is_written_again(monkeypatch, machine, tmp_path, damage):
    at_once(monkeypatch, tmp_path)
    decide()
    (file,) = (tmp_path / "chainer-mmix" / "gpu-check").glob("*.json")
    good = file.read_text()
    file.write_text(good[:300] if damage == "cut" else damage)
    assert decide() == [] and machine() == 2
    assert json.loads(file.read_text()) == json.loads(good)


def test_another_card_or_version_has_another_verdict(monkeypatch, machine, tmp_path):
    at_once(monkeypatch, tmp_path)
    decide()
    for change in ({"card": "NVIDIA H100"}, {"driver": "580"}, {"cuDNN": "9.20"}):
        monkeypatch.setitem(CARD, *next(iter(change.items())))
        decide()
    assert machine() == 4


def test_without_a_place_for_files(monkeypatch, tmp_path):
    at_once(monkeypatch, tmp_path)
    monkeypatch.setattr(verdict.plans, "folder", lambda: tmp_path / "checks" / "x")
    (tmp_path / "checks").touch()
    assert decide() == [] and is_on() == (True, True)


@pytest.mark.slow
def test_processes_that_start_together_check_once(monkeypatch, tmp_path, machine):
    """As under MPI: the others wait for the first."""
    code = f"""
import sys
from importlib import import_module
sys.path.append({str(Path(child.__file__).parent)!r})
import chainer
from chainer_revive.gpu_check import verdict
verdict.command = [sys.executable, {child.__file__!r}, "nothing", "-"]
found = verdict.get({{"modules": []}}, 0)
print(found.crash, len(found.units))
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    assert {p.communicate()[0] for p in processes} == {"None 15\n"}
    assert machine() == 1


def test_what_cannot_be_described_is_left_to_chainer(monkeypatch):
    monkeypatch.setattr(gpu_check, "modules", ["chainer_mmix.gpu_check"])

    def fail(modules):
        raise RuntimeError(
            "cudaErrorInsufficientDriver: driver version is insufficient"
        )

    monkeypatch.setattr(card, "describe", fail)
    (warning,) = decide()
    assert (
        "driver is missing or too old for this CUDA" in warning and "cuda12" in warning
    )
    assert is_on() == (False, False)
    assert {"mix", "graphs"} < set(registry.left_off())


@pytest.mark.parametrize("capability, warns", [("9.0", False), ("10.0", True)])
def test_a_card_that_is_newer_than_cudnn_8(monkeypatch, capability, warns, tmp_path):
    at_once(monkeypatch, tmp_path)
    monkeypatch.setattr(cuda, "cudnn_enabled", True)
    monkeypatch.setitem(CARD, "compute capability", capability)
    found = decide()
    assert len(found) == warns
    assert not warns or "install 'chainer-mmix[cuda13]'" in found[0]


@pytest.mark.parametrize(
    "error, remedy",
    [
        ("OutOfMemoryError: Out of memory allocating 1 bytes", "a smaller batch"),
        ("cudaErrorInsufficientDriver: insufficient", "too old"),
        ("CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error", "--resume auto"),
        ("cudaErrorIllegalAddress: an illegal memory access", "--resume auto"),
        (
            "cudaErrorNoDevice: no CUDA-capable device is detected",
            "CUDA_VISIBLE_DEVICES",
        ),
        ("cudaErrorNoKernelImageForDevice: no kernel image", "[cuda13]"),
        (
            "CompileException: nvrtc: error: invalid value for --gpu-architecture",
            "no code for this GPU",
        ),
    ],
)
def test_each_fault_has_a_remedy(error, remedy):
    kind, _, text = error.partition(": ")
    exception = type(kind, (Exception,), {})(text if "Error" not in kind[:4] else error)
    if kind.startswith("cuda") or kind.startswith("CUDA"):
        exception = RuntimeError(error)
    assert remedy in faults.explain(exception)
    assert "\n" not in faults.explain(exception)
    assert faults.sentence(ValueError("shape mismatch")) is None
