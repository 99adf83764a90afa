"""``chainer-mmix export``: the network of a run for other programs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

import numpy as np

from chainer_mmix.cli import command, predict
from chainer_mmix.cli.argument_types import positive_int

if TYPE_CHECKING:
    from chainer_mmix.inference import Predictor

_DESCRIPTION = """\
Write the trained network of a run for other programs, by the ending of the file:

  .onnx         for ONNX Runtime and others, in test mode, with batch normalisation
                folded and any number of images a call. ONNX Runtime calls the file
                with images that the run validated on, and the outputs (logits) must be
                Chainer's. Needs the extra onnx.
  .safetensors  the weights, by Chainer's names, or with --names torchvision what
                load_state_dict of torchvision's or timm's ResNet takes, for a run with
                --stem torchvision. Needs the extra safetensors.
"""
_EPILOG = """\
example:
  chainer-mmix export result/digits_cnn_manifold_alpha0.2_seed0 digits.onnx
"""
_N_CHECKED = 16
_OPSET = 17  # that of inference.export, which takes a second to import


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds this command to those of the console script."""
    parser = command.add_parser(
        *(commands, "export", _export, predict.ERRORS),
        help="write the network of a run as ONNX, or its weights",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    predict.add_run_arguments(parser)
    parser.add_argument(
        "out", metavar="FILE", help="what to write: a name in .onnx or .safetensors"
    )
    parser.add_argument(
        "--opset",
        type=positive_int,
        metavar="N",
        help=f"the version of ONNX's operators (default: {_OPSET})",
    )
    parser.add_argument(
        "--names",
        choices=("chainer", "torchvision"),
        help="of the weights in a .safetensors (default: chainer)",
    )


def _export(args: argparse.Namespace) -> None:
    out = command.check_out(args.out, ".onnx", ".safetensors", flag="")
    is_onnx = out.suffix.lower() == ".onnx"
    if is_onnx and args.names is not None:
        raise ValueError("--names is for a .safetensors, not a .onnx: leave it out")
    if not is_onnx and args.opset is not None:
        raise ValueError("--opset is for a .onnx, not a .safetensors: leave it out")
    predictor = predict.load(args, dtype="float32")
    if is_onnx:
        from chainer_mmix.inference.export import export_onnx

        x, what = _inputs(predictor)
        properties = _properties(predictor)
        opset = args.opset or _OPSET
        difference = export_onnx(
            predictor.network, x, out, opset=opset, properties=properties
        )
        print(
            f"{out}: opset {opset}, input x {('N', *x.shape[1:])}, output y "
            f"{('N', len(predictor.class_names))}, logits; ONNX Runtime's differ from "
            f"Chainer's by up to {difference:.1e} for {len(x)} {what}"
        )
    else:
        from chainer_mmix.inference.weights import export_weights

        names = args.names or "chainer"
        n = export_weights(predictor.network, out, names, _properties(predictor))
        print(f"{out}: {n} arrays by the names of {names}")


def _inputs(predictor: Predictor) -> tuple[np.ndarray, str]:
    """Returns inputs to check with: some that the run validated on, if they exist."""
    from chainer_mmix.inference.examples import find_examples

    try:
        examples = find_examples(predictor)
    except (ImportError, OSError, ValueError) as e:
        shape = predictor.preprocess.shape
        if shape is None:
            raise
        command.warn([f"checked with random images, for want of others ({e})"])
        low, high = predictor.preprocess.range or (0, 1)
        x = np.random.default_rng(0).uniform(low, high, (_N_CHECKED, *shape))
        return x.astype(np.float32), "random images"
    n = len(examples.labels)
    places = np.linspace(0, n - 1, min(n, _N_CHECKED)).astype(int)
    x = np.stack([examples.load(int(i)) for i in places])
    return x, f"images of {examples.what}"


def _properties(predictor: Predictor) -> dict[str, str]:
    """Returns what a program needs to know besides the network, as JSON."""
    preprocess = predictor.preprocess
    found = {
        "class_names": predictor.class_names,
        "input_shape": preprocess.shape,
        "input_range": preprocess.range,
        "snapshot": predictor.snapshot.name,
    }
    return {key: json.dumps(value) for key, value in found.items() if value is not None}
