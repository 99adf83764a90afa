"""onnx_chainer, which comes with Chainer."""

import subprocess
import sys
from pathlib import Path

import chainer
import chainer.functions as F
import numpy as np
import pytest

import chainer_revive

HOOK = Path(chainer_revive.__file__).parents[1] / "chainer_revive.pth"


def test_the_start_up_hook_finds_it_before_chainer():
    pytest.importorskip("onnx")
    hook = f"exec({HOOK.read_text()!r})"
    code = "import onnx_chainer.functions.array as a; print(a.NP_TYPE_TO_TENSOR_TYPE)"
    command = [sys.executable, "-c", f"{hook}; {code}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "_TensorTypes" in done.stdout, done.stderr


def test_types_are_onnxs():
    onnx = pytest.importorskip("onnx")
    from onnx_chainer.export import NP_TYPE_TO_TENSOR_TYPE

    for dtype, expected in [
        (np.float32, onnx.TensorProto.FLOAT),
        (np.dtype("float16"), onnx.TensorProto.FLOAT16),
        (np.int64, onnx.TensorProto.INT64),
        (np.bool_, onnx.TensorProto.BOOL),
    ]:
        assert NP_TYPE_TO_TENSOR_TYPE[dtype] == expected


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11])
def test_export_gives_the_oldest_version_that_serves(opset):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    import onnx_chainer

    class Net(chainer.Chain):
        def forward(self, x):
            # Constants of integers, and casts.
            return F.cast(F.argmax(x, axis=1), "float32") + F.sum(x[:, 1:3], axis=1)

    x = np.random.RandomState(0).rand(3, 4).astype(np.float32)
    model = onnx_chainer.export(Net(), x, opset_version=opset)
    entry = onnx.helper.make_opsetid("", opset)
    assert model.ir_version == onnx.helper.find_min_ir_version_for([entry])
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {session.get_inputs()[-1].name: x})
    np.testing.assert_allclose(y, x.argmax(1) + x[:, 1:3].sum(1), 1e-6)


def test_operators_of_ones_own_keep_their_domain():
    onnx = pytest.importorskip("onnx")
    import onnx_chainer

    def convert(param):
        return (
            onnx.helper.make_node(
                "Own", param.input_names, param.output_names, domain="mine"
            ),
        )

    class Net(chainer.Chain):
        def forward(self, x):
            return F.relu(x)

    model = onnx_chainer.export(
        Net(),
        np.ones((2, 3), np.float32),
        opset_version=11,
        external_converters={"ReLU": convert},
        external_opset_imports={"mine": 1},
    )
    assert model.ir_version == 6
    assert [(node.domain, node.op_type) for node in model.graph.node] == [
        ("mine", "Own")
    ]


def test_a_missing_onnx_is_told_with_the_remedy():
    code = """
import sys
sys.modules["onnx"] = None
import chainer_revive, onnx_chainer
onnx_chainer.export(None, None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'chainer-mmix[onnx]'" in done.stderr


def test_what_else_goes_wrong_is_not_taken_for_a_missing_onnx():
    pytest.importorskip("onnx")
    code = """
import sys
sys.modules["onnx.checker"] = None
import chainer_revive, onnx_chainer
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "import of onnx.checker halted" in done.stderr or "checker" in done.stderr
