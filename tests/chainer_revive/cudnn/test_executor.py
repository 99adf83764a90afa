"""What reaches cuDNN and CuPy, which are doubles here."""

import struct
import sys
from ctypes import string_at
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from chainer_revive.cudnn import plans
from chainer_revive.cudnn.executor import Executor
from chainer_revive.cudnn.layout import Tensor
from chainer_revive.cudnn.operations import SCALAR, operation


class Array(np.ndarray):
    """A NumPy array with an address on a GPU."""

    at = 0

    @property
    def data(self):
        return SimpleNamespace(ptr=self.at)


def array(at, value):
    result = np.full(4, value, "f").view(Array)
    result.at = at
    return result


class Graph:
    def execute(self, pointers, workspace, handle):
        self.call = pointers, workspace, handle
        self.numbers = [
            struct.unpack("f", string_at(p, 4))[0] for p in pointers.values() if p > 1e6
        ]


@pytest.fixture
def machine(monkeypatch):
    """Two GPUs, a stream and a cuDNN."""
    m = SimpleNamespace(device=0, handles=0, streams=[], allocated=[], asked=[])
    m.graph = Graph()

    def create_handle():
        m.handles += 1
        return f"handle {m.handles}"

    def alloc(size):
        m.allocated.append(size)
        return SimpleNamespace(ptr=512)

    def get(operation, target):
        m.asked.append((operation, target))
        return plans.Plan(m.graph, 100)

    runtime = SimpleNamespace(
        getDevice=lambda: m.device,
        getDeviceProperties=lambda device: {
            "name": b"A GPU",
            "major": 9,
            "minor": device,
            "multiProcessorCount": 132,
        },
        driverGetVersion=lambda: 13000,
    )
    cuda = SimpleNamespace(
        runtime=runtime,
        alloc=alloc,
        get_current_stream=lambda: SimpleNamespace(ptr=77),
    )
    cudnn = SimpleNamespace(
        create_handle=create_handle, set_stream=lambda *args: m.streams.append(args)
    )
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "cudnn", cudnn)
    monkeypatch.setattr(plans, "get", get)
    return m


OPERATION = operation("batch normalization", [SCALAR], [Tensor.per_channel(4)])


def test_running(machine):
    run = Executor().prepare(OPERATION)
    run([array(256, 1), 2.5], [array(512, 3)])
    (pointers, workspace, handle) = machine.graph.call
    assert list(pointers) == [1, 2, 3]
    assert (pointers[1], pointers[3]) == (256, 512)
    assert machine.graph.numbers == [2.5]
    assert (workspace, handle) == (512, "handle 1")
    assert machine.allocated == [100]
    assert machine.streams == [("handle 1", 77)]


def test_plans_and_handles_are_made_once_a_gpu(machine):
    executor = Executor()
    for machine.device in (0, 0, 1, 1, 0):
        executor.prepare(OPERATION)
    assert machine.handles == 2
    names = [target.name for _, target in machine.asked]
    assert len(set(names)) == len(names) == 2
    assert [target.handle for _, target in machine.asked] == ["handle 1", "handle 2"]


def test_refusals_are_remembered(machine, monkeypatch):
    asked = []
    monkeypatch.setattr(plans, "get", lambda *args: asked.append(args))
    executor = Executor()
    assert executor.prepare(OPERATION) is executor.prepare(OPERATION) is None
    assert len(asked) == 1


def test_addresses_that_are_not_aligned(machine, monkeypatch):
    x, y = array(260, 1), array(516, 3)
    copies = []

    def copy(self, order):
        copies.append(array(4096 * (len(copies) + 1), 7))  # what cuDNN would write
        return copies[-1]

    monkeypatch.setattr(Array, "copy", copy)
    Executor().prepare(replace(OPERATION, inputs=OPERATION.outputs))([x], [y])
    assert machine.graph.call[0] == {1: 4096, 2: 8192}
    assert (x == 1).all()
    assert (y == 7).all()


def test_a_failure_is_told(monkeypatch):
    class NotSupported(Exception):
        pass

    cudnn = SimpleNamespace(
        cudnnGraphNotSupportedError=NotSupported,
        __version__="1",
        backend_version=lambda: 9,
    )
    monkeypatch.setitem(sys.modules, "cudnn", cudnn)

    def build(operation, **target):
        raise RuntimeError("CUDNN_STATUS_INTERNAL_ERROR")

    monkeypatch.setattr(plans, "build", build)
    with pytest.warns(UserWarning, match="instead of cuDNN, which failed .*INTERNAL"):
        assert plans.get(OPERATION, plans.Target("no GPU")) is None
