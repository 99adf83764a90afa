#!/usr/bin/env bash
# Chainer 7.8.1 beside torch 2.13.0: NesterovAG is a step ahead of SGD(nesterov=True).
#
# Guess: both are the same method, whose first step from rest is (1 + momentum) = 1.9
# times lr * gradient. Seen: Chainer's first step is 1 + m + m^2 = 2.71 times that, its
# second is torch's third, and so on. MomentumSGD agrees with SGD(nesterov=False). A
# recipe that was tuned with the one has another effective learning rate in the other.
# Needs Python 3.10 or 3.11, for NumPy 1.23.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/pip" install --quiet "$@"; }
pip torch==2.13.0
pip setuptools==80.9.0 wheel==0.45.1 numpy==1.23.5
pip --no-build-isolation chainer==7.8.1
SETUPTOOLS_USE_DISTUTILS=stdlib "$work/venv/bin/python" - <<'PYTHON'
import chainer
import numpy as np
import torch


def chainers(optimizer):
    link = chainer.Link()
    with link.init_scope():
        link.p = chainer.Parameter(np.zeros(1))
    optimizer.setup(link)
    places = [0.0]
    for _ in range(4):
        link.p.grad = np.ones(1)
        optimizer.update()
        places.append(float(link.p.array[0]))
    return -np.diff(places) / 0.1


def torchs(nesterov):
    p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9, nesterov=nesterov)
    places = [0.0]
    for _ in range(4):
        p.grad = torch.ones_like(p)
        optimizer.step()
        places.append(float(p.detach()))
    return -np.diff(places) / 0.1


steps = {
    "Chainer NesterovAG": chainers(chainer.optimizers.NesterovAG(0.1, 0.9)),
    "torch nesterov": torchs(True),
    "Chainer MomentumSGD": chainers(chainer.optimizers.MomentumSGD(0.1, 0.9)),
    "torch momentum": torchs(False),
}
for name, step in steps.items():
    print(f"{name}: steps of {np.round(step, 4)} lr * gradient")
nesterov, torch_nesterov, momentum, torch_momentum = steps.values()
np.testing.assert_allclose(momentum, torch_momentum)
np.testing.assert_allclose(torch_nesterov[0], 1.9)
np.testing.assert_allclose(nesterov[0], 2.71)
np.testing.assert_allclose(nesterov[:-1], torch_nesterov[1:])
PYTHON
