"""What a verdict holds for, with a double of CuPy."""

import json
import sys
from importlib import import_module
from types import SimpleNamespace

import chainer
import pytest
from chainer.backends import cuda

from chainer_revive.gpu_check import auto, card


@pytest.fixture
def cupy(monkeypatch):
    runtime = SimpleNamespace(
        getDevice=lambda: 1,
        getDeviceProperties=lambda device: {
            "name": f"NVIDIA {device}".encode(),
            "major": 9,
            "minor": 0,
            "totalGlobalMem": 2**33,
        },
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 12090,
    )
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime), __version__="14.2")
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    versions = import_module("chainer_revive.cudnn.versions")
    monkeypatch.setattr(versions, "versions", lambda: ("9.20", "1.28"))
    return cupy


def test_the_current_card_and_all_that_computes_on_it(cupy):
    modules = ["chainer_mmix.gpu_check"]
    found = card.describe(modules)
    assert json.loads(json.dumps(found)) == found
    assert found["card"] == "NVIDIA 1" and found["compute capability"] == "9.0"
    assert found["cuDNN"] == "9.20" and found["CuPy"] == "14.2"
    assert found["modules"] == modules
    assert len(found["sources"]) == 16 and found == card.describe(modules)


def test_other_sources_are_checked_anew(monkeypatch, tmp_path):
    """Those of the packages that are checked, and of no others."""
    (tmp_path / "package" / "part").mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "part" / "kernel.py").write_text("old")
    (tmp_path / "alone.py").write_text("one = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = set()
    for number, name in enumerate(("package/part/kernel.py", "alone.py", "other.py")):
        (tmp_path / name).write_text(f"changed = {number}\n")
        seen.add(card._digest(["package.part", "alone"]))
    assert len(seen) == 2


def test_layers(cupy, monkeypatch):
    assert card.usable_layers() == {"cuda", "capture", "cudnn"}
    monkeypatch.setattr(cuda, "cudnn_enabled", True)  # CuPy 13
    assert card.usable_layers() == {"cuda", "capture"}
    assert card.describe([])["cuDNN"] is None
    monkeypatch.setattr(cuda, "cudnn_enabled", False)

    def missing():
        raise ImportError("no frontend")

    versions = import_module("chainer_revive.cudnn.versions")
    monkeypatch.setattr(versions, "versions", missing)
    assert card.usable_layers() == {"cuda", "capture"}


def test_a_step_on_a_gpu_is_a_use_of_it(monkeypatch):
    optimizer = chainer.optimizers.SGD().setup(chainer.links.Linear(2, 2))
    assert not auto._is_on_a_gpu((optimizer,))
    device = object.__new__(chainer.backend.GpuDevice)
    monkeypatch.setattr(chainer.Link, "device", device)
    assert auto._is_on_a_gpu((optimizer, None))
