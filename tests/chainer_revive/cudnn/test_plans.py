"""Builds plans for GPUs that are not here; nothing is run."""

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import chainer
import chainer.functions as F
import numpy as np
import pytest

from chainer_mmix.models.preactresnet import PreActResNet18
from chainer_mmix.models.resnet import ResNet50
from chainer_revive.cudnn.layout import Tensor
from chainer_revive.cudnn.operations import SCALAR, operation

HERE = Path(__file__).parent
BATCH = 128
NETWORKS = {
    "PreActResNet18": lambda: PreActResNet18(10),
    "ResNet50": lambda: ResNet50(10),
    "ResNet50 for CIFAR": lambda: ResNet50(10, stem="cifar"),
}

pytestmark = pytest.mark.skipif(
    not (importlib.util.find_spec("cudnn") and importlib.util.find_spec("cupy")),
    reason="needs CuPy and nvidia-cudnn-frontend",
)


@pytest.fixture
def build(driver, tmp_path):
    """``build(gpu, operations)`` builds plans in a new process, with its own cache."""

    def run(gpu, operations, **environ):
        path = tmp_path / "operations"
        path.write_bytes(pickle.dumps(operations))
        process = subprocess.run(
            [sys.executable, HERE / "build_plans.py", gpu, path],
            env={
                **os.environ,
                "LD_LIBRARY_PATH": str(driver),
                "XDG_CACHE_HOME": str(tmp_path),
                "OMP_NUM_THREADS": "1",
                **environ,
            },
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)

    return run


class Recorder:
    """Notes what is asked for and computes zeros."""

    xp = np

    def __init__(self):
        self.operations = set()

    def prepare(self, operation):
        self.operations.add(operation)

        def run(inputs, outputs):
            for y in outputs:
                y[...] = 0

        return run


def at_batch(operation, n, m):
    """The operation on m images instead of n."""

    def sized(tensors):
        return tuple(
            t._replace(shape=(m, *t.shape[1:])) if t.shape[:1] == (n,) else t
            for t in tensors
        )

    return replace(
        operation, inputs=sized(operation.inputs), outputs=sized(operation.outputs)
    )


def asked_for(fake, network, dtype):
    """The operations of a forward and a backward pass of a network."""
    n = 3  # no other first axis has this length
    with fake(Recorder()) as recorder, chainer.using_config("dtype", dtype):
        model = NETWORKS[network]()
        x = np.zeros((n, 3, 32, 32), chainer.get_dtype())
        F.sum(model(x)).backward()
    return {at_batch(o, n, BATCH) for o in recorder.operations}


def conv(shape=(8, 64, 8, 8), dtype="f"):
    image = Tensor.channels_last(dtype, shape)
    W = Tensor.contiguous(dtype, (shape[1], shape[1], 3, 3))
    ones = {"padding": (1, 1), "stride": (1, 1), "dilation": (1, 1)}
    return operation("convolution", [image, W], [image], **ones)


def norm_gradient(channels, dtype="f"):
    image = Tensor.channels_last(dtype, (8, channels, 8, 8))
    values = Tensor.per_channel(channels)
    kind = "batch normalization by x"
    return operation(kind, [image, image, *[values] * 3], [image, values, values])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("gpu", ["sm_80", "sm_90"])
def test_every_plan_of_the_networks(fake, build, gpu):
    """Batch 128, forward and backward; ``mixed16`` asks for what float16 asks for."""
    asked = {
        (name, dtype): asked_for(fake, name, np.dtype(dtype))
        for name in NETWORKS
        for dtype in "fe"
    }
    assert asked_for(fake, "ResNet50", chainer.mixed16) == asked["ResNet50", "e"]
    kinds = {o.kind for o in asked["PreActResNet18", "f"]}
    assert len(kinds) == 5
    operations = sorted(set.union(*asked.values()), key=repr)
    first = build(gpu, operations)
    refused = [o for o, p in zip(operations, first["plans"], strict=True) if p is None]
    assert not refused
    again = build(gpu, operations)
    assert again["plans"] == first["plans"]
    assert again["seconds"] < first["seconds"] / 4  # from the disk


def test_addresses_arrive_in_order(build):
    """In a plan that is new, and in one from the disk."""
    image = Tensor.channels_last("e", (8, 64, 8, 8))
    values = [Tensor.per_channel(64)] * 4
    inputs = [image, *values, SCALAR, SCALAR]
    operations = [
        conv(dtype="e"),
        operation("batch normalization", inputs, [image, *values]),
        norm_gradient(64, "e"),
    ]
    for _ in range(2):
        calls = [plan["call"] for plan in build("sm_90", operations)["plans"]]
        addresses = [[16 * k for k in range(1, n + 1)] for n in (3, 12, 8)]
        assert calls == [[own, 512, 7] for own in addresses]


def test_what_cudnn_refuses(build):
    """Numbers of channels that are no multiple of a vector."""
    plans = build("sm_90", [norm_gradient(63, "e"), norm_gradient(64, "e")])["plans"]
    assert plans[0] is None
    assert plans[1] is not None


@pytest.mark.parametrize(
    "mode",
    [{"tensor_cores": False}, {"deterministic": True}],
    ids=lambda m: next(iter(m)),
)
def test_modes_take_other_engines(fake, build, mode):
    """Gradients by W have engines of all kinds."""
    asked = asked_for(fake, "PreActResNet18", np.float32)
    asked = sorted((o for o in asked if o.kind == "convolution by W"), key=repr)
    plans = build("sm_90", [*asked, *(replace(o, **mode) for o in asked)])["plans"]
    assert None not in plans
    engines = [plan["engine"] for plan in plans]
    assert engines[: len(asked)] != engines[len(asked) :]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def another_plan(path):
    other = next(p for p in path.parent.iterdir() if p != path)
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, another_plan])
def test_a_damaged_file_is_rewritten(build, tmp_path, damage):
    operations = [conv(), conv((4, 64, 8, 8))]
    expected = build("sm_90", operations)["plans"]
    files = sorted((tmp_path / "chainer-mmix" / "cudnn").iterdir())
    assert len(files) == 2
    good = files[0].read_bytes()
    damage(files[0])
    damaged = files[0].read_bytes()
    assert build("sm_90", operations)["plans"] == expected
    assert sorted(files[0].parent.iterdir()) == files  # and no temporary ones
    assert len(files[0].read_bytes()) == len(good)
    assert files[0].read_bytes() != damaged


def test_files_are_for_one_gpu(build, tmp_path):
    build("sm_80", [conv()])
    build("sm_90", [conv()])
    assert len(list((tmp_path / "chainer-mmix" / "cudnn").iterdir())) == 2


def test_without_a_place_for_files(build):
    (plan,) = build("sm_90", [conv()], XDG_CACHE_HOME=os.devnull)["plans"]
    assert plan is not None
