#!/usr/bin/env bash
# Chainer 7.8.1: GradientClipping sets gradients in half precision to zero.
#
# Guess: norms of float16 gradients are computed in float32, as loss scaling makes large
# gradients common; or an overflow gives NaN, which FailOnNonNumber notices. Seen: the
# squares are summed in float16, so that each norm from 256 on is infinite; the gradients
# are multiplied by threshold / inf = 0 and nothing is learned. NumPy warns of nothing,
# and all numbers are finite. Needs Python 3.10 or 3.11, for NumPy 1.23.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/pip" install --quiet "$@"; }
pip setuptools==80.9.0 wheel==0.45.1 numpy==1.23.5
pip --no-build-isolation chainer==7.8.1
cat > "$work/run.py" <<'PYTHON'
import warnings

import chainer
import numpy as np
from chainer.optimizer_hooks import GradientClipping


def clipped(norm, dtype):
    link = chainer.Link()
    with link.init_scope():
        link.p = chainer.Parameter(np.ones(100, dtype))
    link.p.grad = np.full(100, norm / 10, dtype)
    optimizer = chainer.optimizers.SGD().setup(link)
    GradientClipping(1.0)(optimizer)
    return float(np.linalg.norm(link.p.grad.astype(np.float64)))


warnings.simplefilter("error")
for norm in (100, 250, 260, 1000):
    single, half = clipped(norm, np.float32), clipped(norm, np.float16)
    print(f"norm {norm:4}, clipped to 1: float32 {single:.3f}, float16 {half:.3f}")
    assert abs(single - 1) < 1e-3
    assert abs(half - 1) < 2e-2 if norm < 256 else half == 0
PYTHON
SETUPTOOLS_USE_DISTUTILS=stdlib "$work/venv/bin/python" -W ignore "$work/run.py"
