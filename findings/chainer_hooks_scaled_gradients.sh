#!/usr/bin/env bash
# Chainer 7.8.1: with loss scaling, the rate of Lasso depends on the scale.
#
# Guess: the hooks of an optimizer allow for loss scaling, as WeightDecay does, which
# multiplies its rate by the scale; so a step with a scaled loss is that without. Seen:
# Lasso adds its plain rate to the scaled gradient, so that with a scale of 128 a weight
# decays 128 times as slowly. Nothing is said. GradientLARS, which gives each gradient the
# norm of its weights, does so before the gradient is divided by the scale.
# Needs Python 3.10 or 3.11, for NumPy 1.23.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/pip" install --quiet "$@"; }
pip setuptools==80.9.0 wheel==0.45.1 numpy==1.23.5
pip --no-build-isolation chainer==7.8.1
SETUPTOOLS_USE_DISTUTILS=stdlib "$work/venv/bin/python" -W ignore - <<'PYTHON'
import chainer
import chainer.functions as F
import numpy as np
from chainer.optimizer_hooks import GradientLARS, Lasso, WeightDecay


class Net(chainer.Link):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.w = chainer.Parameter(np.ones(4, "f"))

    def forward(self):
        return F.sum(self.w * self.w) * 2.0**-11


def step(hook, scale):
    """Returns how far one step of SGD moves a weight."""
    net = Net()
    optimizer = chainer.optimizers.SGD(1.0).setup(net)
    optimizer.add_hook(hook)
    optimizer.loss_scaling(scale=scale)
    optimizer.update(net)
    return 1 - float(net.w.array[0])


moves = {}
for name, hook in (
    ("WeightDecay", WeightDecay(0.25)),
    ("Lasso", Lasso(0.25)),
    ("GradientLARS", GradientLARS(0.25)),
):
    moves[name] = [step(hook, scale) for scale in (1, 128)]
    print(f"{name}: {moves[name][0]:.6f} without scaling, {moves[name][1]:.6f} with 128")
gradient = 2.0**-10
assert np.allclose(moves["WeightDecay"], [0.25 + gradient] * 2)
assert np.allclose(moves["Lasso"], [0.25 + gradient, 0.25 / 128 + gradient])
plain, scaled = moves["GradientLARS"]
assert plain > 0.2 and scaled < plain / 100
PYTHON
