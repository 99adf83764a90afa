import sys

import chainer
import pytest

from chainer_mmix.training import get_device


@pytest.mark.parametrize("spec", [-1, "-1", "@numpy"])
def test_cpu(spec):
    assert get_device(spec) == chainer.get_device("@numpy")


@pytest.mark.parametrize("spec", [0, "0", "@cupy:0", "@cupy:1"])
def test_without_cupy_the_error_says_what_to_install(monkeypatch, spec):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ValueError, match=r"needs CuPy.*cuda13.*cuda12.*on the CPU"):
        get_device(spec)


class FakeCupy:
    """CuPy on a machine with a number of GPUs; a text stands for no driver."""

    def __init__(self, count):
        self.cuda = self.runtime = self
        self.count = count

    def getDeviceCount(self):
        if isinstance(self.count, str):
            raise RuntimeError(self.count)
        return self.count


def test_without_a_driver_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy("cudaErrorInsufficientDriver"))
    with pytest.raises(
        ValueError, match=r"InsufficientDriver.*NVIDIA's driver is missing"
    ):
        get_device(0)


@pytest.mark.parametrize("spec", [2, "@cupy:2"])
def test_a_gpu_that_is_not_there(monkeypatch, spec):
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(2))
    with pytest.raises(ValueError, match="no GPU 2: this machine has 2"):
        get_device(spec)


@pytest.mark.parametrize("spec", ["@nonsense", "cuda:0", "@cupy:x", "@cupy"])
def test_unknown_specifiers(spec):
    with pytest.raises(ValueError, match=f"no device {spec!r}.*@numpy"):
        get_device(spec)


@pytest.mark.gpu
def test_gpu():
    assert get_device(0) == get_device("@cupy:0") == chainer.get_device("@cupy:0")
