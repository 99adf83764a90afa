"""ONNX files of trained networks, checked against Chainer."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import chainer
import numpy as np

from chainer_mmix.analysis.predictions import in_test_mode, to_host
from chainer_revive.atomic import write_atomically

OPSET = 17
_TRACED = 11  # the last that onnx_chainer knows; ONNX itself converts from there
_TOLERANCE = 1e-4  # of the largest output: float32, summed in another order
_NO_ONNX = (
    "the export needs ONNX and ONNX Runtime, which cannot be imported ({}): "
    "pip install 'chainer-mmix[onnx]'"
)


class ExportError(ValueError):
    """A network cannot be exported, or what was exported computes something else."""


def export_onnx(
    link: chainer.Link,
    x: np.ndarray | Sequence[np.ndarray],
    path: str | Path,
    *,
    opset: int = OPSET,
    properties: Mapping[str, str] | None = None,
) -> float:
    """Writes a network in test mode as ONNX, and checks what it computes.

    The graph is that of :mod:`onnx_chainer`, which comes with Chainer, converted by
    ONNX and simplified by ONNX Runtime: batch normalisation is folded into the
    convolution before it. The number of samples is open. ONNX Runtime calls the file
    with all inputs and with one of them, and the outputs must be Chainer's; only then
    does the file appear.

    Inputs are called ``x``, or ``x0`` and so on if there are several, outputs ``y``.

    Args:
        link (~chainer.Link): The network; of a classifier, its predictor counts.
        x (numpy.ndarray or sequence): Real inputs, of shape (N, ...), or a sequence of
            the arrays of a network of several inputs.
        path (str or path-like): The file, whose folder exists.
        opset (int): The version of ONNX's operators, 11 or more. The default is 17. The
            file has the oldest format that it needs.
        properties (mapping of str): What else the file tells.

    Returns:
        float: The largest difference between the outputs of both.

    Raises:
        ImportError: If ONNX or ONNX Runtime is missing.
        TypeError: If ``link`` is no link or ``x`` has no arrays.
        ValueError: If ``x`` has no samples, or an array more of them than another.
        ExportError: If the network has functions that :mod:`onnx_chainer` does not
            know, is bound to a number of samples, or the outputs differ.
    """
    try:
        import onnx
        import onnx_chainer  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as e:
        raise ImportError(_NO_ONNX.format(e)) from e
    newest = onnx.defs.onnx_opset_version()
    if not _TRACED <= opset <= newest:
        raise ExportError(f"opset must be {_TRACED} to {newest}, not {opset}")
    if isinstance(link, chainer.links.Classifier):
        link = link.predictor
    xs = _check_inputs(link, x)
    expected = _call(link, xs)
    if not all(np.isfinite(y).all() for y in expected):
        raise ExportError(
            f"the outputs of {type(link).__name__} are not finite, so that no file can "
            "be checked: pass other inputs, or a network that was trained well"
        )
    if not isinstance(link.device, chainer.backend.CpuDevice):
        link = link.copy(mode="copy")
        link.to_device("@numpy")
    graphs = [_trace(link, [_take(x, n) for x in xs], len(expected)) for n in (2, 3)]
    parameters = {tensor.name for tensor in graphs[0].graph.initializer}
    inputs = [v for v in graphs[0].graph.input if v.name not in parameters]
    try:
        model = _with_open_batch(*graphs)
        del model.graph.input[:]  # parameters are constants
        model.graph.input.extend(inputs)
        model = onnx.version_converter.convert_version(model, opset)
    except ExportError:
        raise
    except Exception as e:  # of the C++ library
        raise ExportError(
            f"ONNX cannot convert the network to opset {opset} ({e}): try another"
        ) from e
    model = _simplified(model)
    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import))
    onnx.helper.set_model_props(model, dict(properties or {}))
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    difference = 0.0
    for n in sorted({1, len(xs[0])}):
        outputs = _run(content, [x[:n] for x in xs])
        wanted = [y[:n] for y in expected]
        difference = max(difference, _difference(link, outputs, wanted))
    with write_atomically(path, "wb") as file:
        file.write(content)
    return difference


def _check_inputs(link: Any, x: Any) -> list[np.ndarray]:
    if not isinstance(link, chainer.Link):
        raise TypeError(f"link must be a chainer.Link, not {link!r}: make one of it")
    xs = list(x) if isinstance(x, (list, tuple)) else [x]
    if not xs or not all(isinstance(array, np.ndarray) for array in xs):
        wrong = next((a for a in xs if not isinstance(a, np.ndarray)), x)
        raise TypeError(
            "x must be a numpy.ndarray of inputs, or one for each argument of the "
            f"network in a list, not of type {type(wrong).__name__}: convert it"
        )
    numbers = [len(array) if array.ndim else 0 for array in xs]
    if min(numbers) < max(numbers) or not max(numbers):
        raise ValueError(
            f"x has {' and '.join(map(str, numbers))} samples: pass some real inputs "
            "to check with, as many for each argument"
        )
    return xs


def _take(x: np.ndarray, n: int) -> np.ndarray:
    return np.resize(x, (n, *x.shape[1:]))


def _call(link: chainer.Link, xs: Sequence[np.ndarray]) -> list[np.ndarray]:
    with in_test_mode():
        outputs = link(*(link.device.send(x) for x in xs))
    return [to_host(y) for y in _flatten(outputs)]


def _flatten(outputs: Any) -> list:
    if isinstance(outputs, dict):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]


def _trace(link: chainer.Link, xs: list[np.ndarray], n_output: int) -> Any:
    """Returns the model of a call with some number of samples."""
    import onnx_chainer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is experimental or deprecated
        try:
            return onnx_chainer.export(
                link,
                list(xs),
                opset_version=_TRACED,
                input_names=_names("x", len(xs)),
                output_names=_names("y", n_output),
                input_shapes=[("N", *x.shape[1:]) for x in xs],
            )
        except Exception as e:  # of the network too, which is given Variables
            raise ExportError(
                f"onnx_chainer cannot export {type(link).__name__}: {e}"
            ) from e


def _names(letter: str, n: int) -> list[str]:
    return [letter] if n == 1 else [f"{letter}{i}" for i in range(n)]


def _with_open_batch(two: Any, three: Any) -> Any:
    """Replaces the constants in which the traces of two and three samples differ.

    Those are shapes, in which one number goes with that of the samples.
    """
    import onnx
    from onnx import numpy_helper

    users: dict[str, list] = {}
    for node in two.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node.op_type)
    pairs = zip(two.graph.node, three.graph.node, strict=True)
    for node, other in pairs:
        if node.op_type != "Constant":
            continue
        value, more = (numpy_helper.to_array(n.attribute[0].t) for n in (node, other))
        if value.shape == more.shape and np.array_equal(value, more):
            continue
        ops = set(users.get(node.output[0], ()))
        is_one_shape = value.shape == more.shape
        places = np.flatnonzero(value != more) if is_one_shape else np.empty(0)
        if len(places) != 1 or ops not in ({"Reshape"}, {"Expand"}):
            raise ExportError(
                f"the network has a constant for {', '.join(sorted(ops))} that depends "
                "on the number of samples, which ONNX has no place for: compute it "
                "from shapes that have no N, or reshape with -1"
            )
        value = value.copy()
        # What is left, the same as the input's, or as much as it has.
        place = int(places[0])
        value[place] = 1 if ops == {"Expand"} else 0 if -1 in value else -1
        tensor = numpy_helper.from_array(value, node.attribute[0].t.name)
        node.attribute[0].CopyFrom(onnx.helper.make_attribute("value", tensor))
    # What was inferred from the constants.
    del two.graph.value_info[:]
    for output in two.graph.output:
        for dimension in output.type.tensor_type.shape.dim:
            dimension.Clear()
    return onnx.shape_inference.infer_shapes(two)


def _simplified(model: Any) -> Any:
    """Returns the model as ONNX Runtime simplifies it, in standard operators alone."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder, "simple.onnx"))
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.graph_optimization_level = level
        options.log_severity_level = 3
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:  # of the C++ library
            raise ExportError(f"ONNX Runtime refuses the network: {e}") from e
        simple = onnx.load(options.optimized_model_filepath)
    used = {node.domain for node in simple.graph.node}
    kept = [entry for entry in simple.opset_import if entry.domain in used | {""}]
    del simple.opset_import[:]
    simple.opset_import.extend(kept)
    return simple


def _run(content: bytes, xs: Sequence[np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        content, options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    try:
        return session.run(None, dict(zip(names, xs, strict=True)))
    except Exception as e:  # of the C++ library
        raise ExportError(
            f"ONNX Runtime cannot call the exported network with {len(xs[0])} "
            f"sample{'s' * (len(xs[0]) > 1)}: {e}; nothing was written"
        ) from e


def _difference(
    link: chainer.Link, outputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]
) -> float:
    largest = 0.0
    for y, own in zip(outputs, wanted, strict=True):
        if y.shape != own.shape:
            raise ExportError(
                f"the exported {type(link).__name__} returns shape {y.shape}, but "
                f"Chainer's {own.shape}: nothing was written"
            )
        difference = float(np.abs(y - own).max(initial=0))
        scale = float(np.abs(own).max(initial=0))
        if not difference <= _TOLERANCE * max(scale, 1e-3):
            raise ExportError(
                f"the exported {type(link).__name__} computes something else than "
                f"Chainer's: outputs up to {scale:.3g} differ by up to "
                f"{difference:.3g}; nothing was written"
            )
        largest = max(largest, difference)
    return largest
