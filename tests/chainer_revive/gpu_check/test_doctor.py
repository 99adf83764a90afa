"""The command, with NumPy in place of the GPU."""

import sys
from types import SimpleNamespace

import child
import numpy as np
import pytest
from chainer.backends import cuda
from numpy_gpu import NumpyGpu

from chainer_revive import gpu_check
from chainer_revive.gpu_check import card, doctor, run, timing, verdict

CARD = {"card": "NVIDIA A100", "compute capability": "8.0", "modules": []}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "report.txt"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """``machine(fault, function)`` makes one with a card."""

    def make(fault="nothing", function="-"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(gpu_check, "modules", [])
        monkeypatch.setattr(doctor, "modules", [])
        monkeypatch.setattr(card, "describe", lambda modules, device: CARD)
        monkeypatch.setattr(card, "usable_layers", lambda: {"cuda", "cudnn"})
        monkeypatch.setattr(cuda, "available", True)
        device = SimpleNamespace(use=lambda: None)
        cupy = SimpleNamespace(
            cuda=SimpleNamespace(Device=lambda number: device),
            get_array_module=lambda *arrays: np,
        )
        monkeypatch.setattr(cuda, "cupy", cupy)
        command = [sys.executable, child.__file__, fault, function]
        monkeypatch.setattr(verdict, "command", command)
        monkeypatch.setattr(run, "Gpu", NumpyGpu)
        monkeypatch.setattr(timing, "_SECONDS", 0)
        monkeypatch.setattr(timing, "_TURNS", 1)
        monkeypatch.setattr(timing.Shapes.__new__, "__defaults__", (1, 16))
        monkeypatch.setattr(doctor, "environment", lambda: ["Python"])

    return make


def test_without_a_gpu(out, capsys):
    assert doctor.main(["--out", str(out)]) == 2
    text = out.read_text()
    assert "chainer 7.8.1" in text and "no GPU: " in text
    assert capsys.readouterr().out == f"{text}written to {out}\n"


@pytest.mark.parametrize(
    "error, remedy",
    [
        (ImportError("No module named 'cupy'"), "'chainer-mmix[cuda12]'"),
        (OSError("libcuda.so.1: cannot open"), "NVIDIA's driver is not installed"),
        (ImportError("libcublas.so.12: cannot open"), "ImportError: libcublas.so.12"),
    ],
)
def test_why_there_is_none(monkeypatch, error, remedy):
    monkeypatch.setattr(cuda, "_resolution_error", error, raising=False)
    assert remedy in doctor.no_gpu_because()


def test_a_machine_that_is_well(machine, out):
    machine()
    assert doctor.main(["--out", str(out)]) == 0
    text = out.read_text()
    assert "card: NVIDIA A100" in text and "WRONG" not in text
    for line in ("convolution, gradient by W", "mixed loss", "optimizers", "ReLU"):
        assert line in text
    timed = text.partition("milliseconds")[2].splitlines()[1:]
    assert len(timed) == 2 * (14 + 4 + 2)
    assert all(len(line.split()) > 4 for line in timed)


def test_a_function_that_cannot_be_timed_does_not_stop_the_others(monkeypatch):
    def loss(*args, **kwargs):
        raise MemoryError("Out of memory allocating 1,024 bytes")

    monkeypatch.setattr(timing, "_loss", loss)
    monkeypatch.setattr(timing, "_SECONDS", 0)
    monkeypatch.setattr(timing, "_TURNS", 1)
    units = [u for u in run.units() if u.name.startswith("cuda/")]
    found = list(timing.measure(units, NumpyGpu(), timing.Shapes(1, 16)))
    lines = [t.line() for t in found]
    assert [t.error is None for t in found] == [False, True] * 2
    assert lines[0].endswith("MemoryError: Out of memory allocating 1,024 bytes")
    assert len(lines[1].split()) > 4


@pytest.mark.slow
def test_a_machine_with_a_fault(machine, out):
    machine("wrong", "cudnn/elementwise:relu")
    assert doctor.main(["--out", str(out)]) == 1
    text = out.read_text()
    wrong = [line for line in text.splitlines() if line.endswith("WRONG")]
    assert [line.split()[0] for line in wrong] == ["ReLU"]
    assert "left to Chainer's own code: cudnn/elementwise:relu" in text
    timed = text.partition("milliseconds")[2]
    assert "sum" in timed and "ReLU" not in timed


@pytest.mark.slow
def test_a_card_that_is_lost_on_the_way(machine, out):
    machine("lost", "cudnn/elementwise:relu")
    assert doctor.main(["--out", str(out)]) == 1
    text = out.read_text()
    assert "the check ended early during cudnn/elementwise:relu" in text
    assert "convolution, gradient by W" in text and "milliseconds" not in text


def test_a_file_that_cannot_be_written(tmp_path, capsys):
    assert doctor.main(["--out", str(tmp_path / "none" / "x.txt")]) == 2
    assert "name another --out" in capsys.readouterr().out


def test_both_commands(python):
    code = """
import subprocess, sys
for words in (["-m", "chainer_revive"], ["-m", "chainer_mmix.cli"]):
    print(subprocess.run([sys.executable, *words, "doctor"]).returncode)
"""
    lines = python(code).splitlines()
    assert lines.count("written to chainer-mmix-doctor.txt") == 2
    assert [line for line in lines if line in "012"] == ["2", "2"]
