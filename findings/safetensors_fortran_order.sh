#!/usr/bin/env bash
# safetensors 0.8.0: safetensors.numpy saves a transposed array with its elements in the
# wrong places.
#
# Guess: as with np.save, or safetensors 0.7.0, what is loaded equals what was saved; or
# an error, as safetensors.torch raises for a tensor that is not contiguous. Seen: the
# memory is written as it lies, but with the shape of the array, so that kernel.T, as one
# writes to bring weights from Keras (in, out) to Chainer or PyTorch (out, in), comes
# back permuted. Shape, dtype, sum and norm are right, and nothing is said.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/pip" install --quiet "$@"; }
pip safetensors==0.7.0 numpy==2.4.6
cat > "$work/run.py" <<'PYTHON'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load, save

right = sys.argv[1] == "right"
kernel = np.arange(6, dtype=np.float32).reshape(3, 2)
saved = {"copy": kernel.T.copy(order="C"), "view": kernel.T}
assert np.array_equal(saved["copy"], saved["view"])
loaded = load(save(saved))
print(f"safetensors {safetensors.__version__}, saved:", kernel.T.tolist())
for name, array in loaded.items():
    print(f"  loaded, {name}:", array.tolist())
    assert array.shape == (2, 3) and array.dtype == np.float32
assert np.array_equal(loaded["copy"], kernel.T)
assert np.array_equal(loaded["view"], kernel.T) == right
assert np.array_equal(loaded["view"], kernel.T if right else kernel.reshape(2, 3))
PYTHON
"$work/venv/bin/python" "$work/run.py" right
pip safetensors==0.8.0
"$work/venv/bin/python" "$work/run.py" wrong
